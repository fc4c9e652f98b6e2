//! What the estimators promise on data whose answer is known.
