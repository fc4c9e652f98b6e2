//! The engine of a configuration: one of the catalog or of a file, and what the
//! configuration says otherwise of it.

use serde_json::{Map, Value};

use super::EngineConfig;
use crate::catalog::{Catalog, CatalogError, EngineSpec, MEMORY_RULES};

/// Keys an engine can do without.
const OPTIONAL: [&str; 1] = ["sources"];

impl EngineConfig {
    /// Whether it is an engine as named, with nothing said otherwise.
    pub(super) fn is_plain(&self) -> bool {
        let Self { name, version, .. } = self;
        let plain = Self {
            name: name.clone(),
            version: version.clone(),
            ..Self::default()
        };
        *self == plain
    }

    /// What it says of an engine besides its name.
    fn figures(&self) -> Map<String, Value> {
        let mut figures = match serde_json::to_value(self) {
            Ok(Value::Object(figures)) => figures,
            // Plain data: serialising it cannot fail.
            _ => Map::new(),
        };
        figures.remove("name");
        figures.retain(|_, value| !value.is_null());
        figures
    }

    /// The engine, `find` being how a name and version are looked up; none where there
    /// is no engine.
    ///
    /// # Errors
    /// If the name leads nowhere and the figures are not all there, or make no sense;
    /// the message is complete but for the key `engine`.
    pub(super) fn resolve(
        &self,
        find: impl FnOnce(&str, Option<&str>) -> Result<EngineSpec, CatalogError>,
    ) -> Result<Option<EngineSpec>, String> {
        let figures = self.figures();
        let Some(name) = &self.name else {
            return match figures.keys().next() {
                None => Ok(None),
                Some(key) => Err(format!(
                    "`{key}` is of an engine: say which, or what to call yours, with `name`"
                )),
            };
        };
        match find(name, self.version.as_deref()) {
            Ok(engine) if self.is_plain() => Ok(Some(engine)),
            Ok(engine) => engine.with(figures).map(Some),
            Err(CatalogError::Unknown { .. }) if missing(&figures).is_empty() => {
                own(name, figures).map(Some)
            }
            Err(error @ CatalogError::Unknown { .. }) if !self.is_plain() => Err(format!(
                "{error}; an engine of your own also needs {}",
                missing(&figures).join(", ")
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The engine, by the catalog and by files; none where there is no engine.
    ///
    /// # Errors
    /// If the name leads nowhere and the figures are not all there, or make no sense;
    /// one line.
    pub fn spec(&self) -> Result<Option<EngineSpec>, String> {
        self.resolve(|name, version| Catalog::builtin().engine(name, version))
    }

    /// The engine of one text: a name, a name and a version, the path of an engine
    /// YAML, or a mapping in YAML.
    ///
    /// # Errors
    /// If it is none of these; one line.
    pub fn of_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with('{') {
            return Self::of_mapping(text);
        }
        let named = |name: &str, version: Option<&str>| Self {
            name: (!name.is_empty()).then(|| name.to_owned()),
            version: version.map(str::to_owned),
            ..Self::default()
        };
        // A path may have blanks in it.
        if std::path::Path::new(text).is_file() {
            return Ok(named(text, None));
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            [] => Ok(Self::default()),
            [name] => Ok(named(name, None)),
            [name, version] => Ok(named(name, Some(version))),
            _ => Err(format!(
                "`{text}` is not an engine; write a name and, if you like, a version (`vllm`, \
                 `vllm 0.24.0`), the path of an engine YAML, or a mapping \
                 (`{{name: vllm, host_overhead_s_per_step: 0.001}}`)"
            )),
        }
    }

    fn of_mapping(text: &str) -> Result<Self, String> {
        let file = std::path::Path::new("engine");
        let mut document = crate::yaml::parse(text, file).map_err(|error| error.message)?;
        let found =
            super::keys::find_run_key("engine").map_err(|_| "no key `engine`".to_owned())?;
        let mut checker = super::check::Checker::default();
        checker.found(&found, &mut document.value, "engine");
        if let Some(issue) = checker.issues.into_iter().next() {
            return Err(issue.message);
        }
        serde_json::from_value(document.value).map_err(|error| error.to_string())
    }
}

/// Keys of an engine that `figures` lacks.
fn missing(figures: &Map<String, Value>) -> Vec<&'static str> {
    let given = |key: &str| figures.contains_key(key);
    let needed = EngineSpec::keys().into_iter();
    let mut missing: Vec<_> = needed
        .filter(|key| *key != "name" && !OPTIONAL.contains(key) && !given(key))
        .collect();
    if MEMORY_RULES.into_iter().any(given) {
        missing.retain(|key| !MEMORY_RULES.contains(key));
    }
    missing
}

/// An engine that nobody else knows.
fn own(name: &str, mut figures: Map<String, Value>) -> Result<EngineSpec, String> {
    figures.insert("name".to_owned(), name.into());
    EngineSpec::of_figures(figures)
}
