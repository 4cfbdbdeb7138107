"""Learners: adapt to a support set, predict a query set; pure functions of tensors."""
