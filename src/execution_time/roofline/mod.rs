//! Backend `roofline`.
