//! The report in its forms: text and Markdown tables here, JSON and the HTML page in modules of their own.

mod html;
mod tables;

use crate::result::{Mean, Offender, Report};
use crate::targets::{self, Reached};
use anyhow::{Context, Result};
use serde::Serialize;

pub use html::page;
pub(crate) use html::{escaped, page_head, sheet_html};
pub(crate) use tables::{Sheet, sheet_markdown, sheet_text};
pub use tables::{markdown, text};

/// The JSON form: the raw data and what follows from it.
#[derive(Serialize)]
struct Full<'a> {
    #[serde(flatten)]
    report: &'a Report,
    means: Vec<Mean>,
    offenders: Vec<Offender>,
    targets: Vec<Reached>,
}

pub fn json(report: &Report) -> Result<String> {
    let full = Full { report, means: report.means(), offenders: report.offenders(), targets: targets::reached(report) };
    Ok(serde_json::to_string_pretty(&full)? + "\n")
}

/// Reads what [`json`] wrote.
pub fn from_json(text: &str) -> Result<Report> {
    serde_json::from_str(text).context("this is no report of cargo xtask bench")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::sample_report;

    #[test]
    fn json_can_be_read_again() {
        let text = json(&sample_report()).unwrap();
        let again = from_json(&text).unwrap();
        assert_eq!(json(&again).unwrap(), text);
        assert!(from_json("{}").is_err());
    }

    #[test]
    fn all_forms_name_what_is_missing_and_what_failed() {
        let report = sample_report();
        for form in [text(&report), markdown(&report), page(&report)] {
            for word in ["tcmalloc", "signal: 11", "native", "0.77", "1.20", "MISSED"] {
                assert!(form.contains(word), "{word} is not in\n{form}");
            }
        }
        assert!(page(&report).contains("1 &lt;2&gt;"));
    }
}
