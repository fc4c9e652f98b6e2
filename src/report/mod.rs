//! Results told to a person: terminal tables and HTML.
