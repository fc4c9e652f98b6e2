//! Charts as pages: one file that needs nothing else, no network either.

use super::chart::Chart;

const TEMPLATE: &str = include_str!("page.html");
const PLACE: &str = "__DATA__";

/// A page with these charts.
pub(super) fn html(title: &str, charts: &[&Chart]) -> String {
    let data = serde_json::json!({ "title": title, "charts": charts });
    // No `<` as such: the data cannot end the element it stands in.
    let data = data.to_string().replace('<', "\\u003c");
    TEMPLATE.replacen(PLACE, &data, 1)
}
