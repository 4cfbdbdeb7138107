"""Learners adapt to a support set and predict a query set; pure functions of tensors."""
