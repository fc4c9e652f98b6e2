//! Backend `silicon`: measured operator tables.
