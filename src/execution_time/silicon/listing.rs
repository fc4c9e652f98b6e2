//! What was measured: tables with the values their keys take.

use std::path::Path;

use serde::Serialize;

use super::frame::Frame;
use super::store::{Files, read_manifest, shipped_manifest};
use super::{SiliconError, Table};

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableListing {
    /// Device measured.
    pub device: String,
    /// What the table holds.
    pub table: &'static str,
    /// Whether it serves only deployments on its own engine, because the
    /// device has another engine's table for the others.
    pub only_for_its_engine: bool,
    /// Serving engine (or library) whose kernels were measured.
    pub engine: String,
    /// Its version.
    pub version: String,
    /// Rows.
    pub rows: usize,
    /// Values of the keys.
    pub keys: Vec<KeyRange>,
    /// Licence of the measurements.
    pub licence: String,
    /// Package and file they come from.
    pub source: String,
}

/// Values one key column takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyRange {
    /// The column.
    pub column: &'static str,
    /// Its values, or the smallest and the largest where they are many.
    pub values: String,
}

/// Tables shipped with the program, or those in `directory`.
///
/// # Errors
/// If the directory has no readable manifest or one of its files is not as
/// listed.
pub fn list_tables(directory: Option<&Path>) -> Result<Vec<TableListing>, SiliconError> {
    let (manifest, files) = match directory {
        None => (shipped_manifest()?, Files::Embedded),
        Some(directory) => (
            read_manifest(directory)?,
            Files::Directory(directory.to_owned()),
        ),
    };
    manifest
        .tables
        .iter()
        .map(|entry| {
            let frame = files.read(&entry.file)?;
            if frame.rows() != entry.rows {
                return Err(SiliconError::Malformed {
                    file: entry.file.clone(),
                    reason: format!(
                        "has {} rows, the manifest says {}",
                        frame.rows(),
                        entry.rows
                    ),
                });
            }
            Ok(TableListing {
                device: entry.device.clone(),
                table: entry.table.name(),
                only_for_its_engine: entry.only_for_its_engine(),
                engine: entry.engine.clone(),
                version: entry.version.clone(),
                rows: entry.rows,
                keys: key_ranges(entry.table, &frame)?,
                licence: manifest.licence.clone(),
                source: format!("{}: {}", manifest.package, entry.source),
            })
        })
        .collect()
}

fn key_ranges(table: Table, frame: &Frame) -> Result<Vec<KeyRange>, SiliconError> {
    /// Most values that are listed one by one.
    const MOST: usize = 8;
    let mut ranges = Vec::new();
    for &column in table.text_columns() {
        let texts = frame.texts(column)?;
        let mut values: Vec<&str> = texts.distinct().collect();
        values.sort_unstable();
        values.dedup();
        ranges.push(KeyRange {
            column,
            values: values.join(" "),
        });
    }
    for &column in table.number_columns() {
        let mut values = frame.numbers(column)?.to_vec();
        values.sort_unstable();
        values.dedup();
        let values = match values.as_slice() {
            [first, .., last] if values.len() > MOST => format!("{first}..{last}"),
            few => {
                let few: Vec<String> = few.iter().map(u32::to_string).collect();
                few.join(" ")
            }
        };
        ranges.push(KeyRange { column, values });
    }
    Ok(ranges)
}
