//! The list of tables beside the files: where each comes from, its size and
//! its checksum.

use saphyr::{LoadableYamlNode, Yaml};

use super::{SiliconError, Table};

/// Name of the manifest inside a data directory.
pub const MANIFEST_FILE: &str = "manifest.yaml";

/// Tables of a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// Package the tables were taken from, with its version.
    pub package: String,
    /// Licence of that package.
    pub licence: String,
    /// Its copyright line.
    pub copyright: String,
    /// The files, by path.
    pub tables: Vec<TableEntry>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// Path under the data directory.
    pub file: String,
    /// Device measured.
    pub device: String,
    /// What the file holds.
    pub table: Table,
    /// Serving engine (or library) whose kernels were measured.
    pub engine: String,
    /// Its version.
    pub version: String,
    /// File in the package.
    pub source: String,
    /// Rows.
    pub rows: usize,
    /// Size of the file.
    pub bytes: usize,
    /// BLAKE3 of the file.
    pub blake3: String,
}

impl TableEntry {
    /// The engine the file is kept for: the middle of
    /// `device/engine/table.parquet`. Other files serve every engine.
    pub fn only_for(&self) -> Option<&str> {
        let mut parts = self.file.split('/').skip(1);
        let engine = parts.next()?;
        parts.next().map(|_| engine)
    }

    /// Whether the file serves only deployments on its own engine.
    pub fn only_for_its_engine(&self) -> bool {
        self.only_for().is_some()
    }
}

impl Manifest {
    /// Reads the text of a manifest; `name` is used in messages.
    ///
    /// # Errors
    /// If the text is not a manifest.
    pub fn parse(name: &str, text: &str) -> Result<Self, SiliconError> {
        let malformed = |reason: String| SiliconError::Malformed {
            file: name.to_owned(),
            reason,
        };
        let documents = Yaml::load_from_str(text).map_err(|error| malformed(error.to_string()))?;
        let root = documents
            .first()
            .ok_or_else(|| malformed("is empty".into()))?;
        let field = |node: &Yaml<'_>, key: &str| {
            node.as_mapping_get(key)
                .and_then(|value| value.as_str().map(str::to_owned))
                .ok_or_else(|| malformed(format!("`{key}` is missing or not text")))
        };
        let size = |node: &Yaml<'_>, key: &str| {
            node.as_mapping_get(key)
                .and_then(|value| value.as_integer())
                .and_then(|value| usize::try_from(value).ok())
                .ok_or_else(|| malformed(format!("`{key}` is missing or not a size")))
        };
        let entries = root
            .as_mapping_get("tables")
            .and_then(|value| value.as_vec())
            .ok_or_else(|| malformed("`tables` is missing or not a list".into()))?;
        let tables = entries
            .iter()
            .map(|node| {
                let kind = field(node, "table")?;
                Ok(TableEntry {
                    file: field(node, "file")?,
                    device: field(node, "device")?,
                    table: Table::from_name(&kind)
                        .ok_or_else(|| malformed(format!("unknown table `{kind}`")))?,
                    engine: field(node, "engine")?,
                    version: field(node, "version")?,
                    source: field(node, "source")?,
                    rows: size(node, "rows")?,
                    bytes: size(node, "bytes")?,
                    blake3: field(node, "blake3")?,
                })
            })
            .collect::<Result<_, SiliconError>>()?;
        Ok(Self {
            package: field(root, "package")?,
            licence: field(root, "licence")?,
            copyright: field(root, "copyright")?,
            tables,
        })
    }

    /// The manifest as YAML.
    pub fn to_yaml(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::from("# Written by `vidur-sweep profiles import aiconfigurator`.\n");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "package: \"{}\"", self.package);
        let _ = writeln!(text, "licence: \"{}\"", self.licence);
        let _ = writeln!(text, "copyright: \"{}\"", self.copyright);
        let _ = writeln!(text, "changes: \"filtered and re-encoded\"");
        let _ = writeln!(text, "tables:");
        for entry in &self.tables {
            let _ = writeln!(text, "  - file: {}", entry.file);
            let _ = writeln!(text, "    device: {}", entry.device);
            let _ = writeln!(text, "    table: {}", entry.table.name());
            let _ = writeln!(text, "    engine: {}", entry.engine);
            let _ = writeln!(text, "    version: \"{}\"", entry.version);
            let _ = writeln!(text, "    source: {}", entry.source);
            let _ = writeln!(text, "    rows: {}", entry.rows);
            let _ = writeln!(text, "    bytes: {}", entry.bytes);
            let _ = writeln!(text, "    blake3: \"{}\"", entry.blake3);
        }
        text
    }
}
