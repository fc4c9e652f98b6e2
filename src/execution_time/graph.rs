//! Operator graphs of models.
