"""Data-free distillation of teachers into students."""
