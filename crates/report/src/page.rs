//! The page that a report becomes for a browser: one file that needs no other. `page.html` is the page; its data, a JSON
//! object whose members docs/profiling.md lists, stands in the middle.

use core::fmt;

/// Where the data goes.
const MARK: &str = "@DATA@";
const PAGE: &str = include_str!("page.html");

/// What comes before the data, and what after it.
#[must_use]
pub fn around() -> (&'static str, &'static str) {
    // Found while this is compiled: the search is no part of the library.
    const AT: usize = {
        let (page, mark) = (PAGE.as_bytes(), MARK.as_bytes());
        let (mut at, mut same) = (0, 0);
        while same < mark.len() {
            same = if page[at] == mark[same] { same + 1 } else { 0 };
            at += 1;
        }
        at - mark.len()
    };
    (&PAGE[..AT], &PAGE[AT + MARK.len()..])
}

/// Writes the page; `data` writes the JSON object.
///
/// # Errors
/// Those of the writer.
pub fn write(out: &mut dyn fmt::Write, data: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) -> fmt::Result {
    let (before, after) = around();
    out.write_str(before)?;
    data(&mut Embedded(out))?;
    out.write_str(after)
}

/// JSON inside HTML: no text of it may end the element that it is in, or a line of a script. The characters stand in strings
/// only, where an escape means the same.
struct Embedded<'a>(&'a mut dyn fmt::Write);

impl fmt::Write for Embedded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        for (at, c) in text.char_indices() {
            if matches!(c, '<' | '\u{2028}' | '\u{2029}') {
                self.0.write_str(&rest[..at + rest.len() - text.len()])?;
                write!(self.0, "\\u{:04x}", u32::from(c))?;
                rest = &text[at + c.len_utf8()..];
            }
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn nothing_in_the_data_ends_its_element() {
        let data = "{\"file\":\"</script><!--<b>\u{2028}\u{2029}é\"}";
        let mut text = String::new();
        write(&mut text, |out| out.write_str(data)).unwrap();
        let (before, after) = around();
        let inside = text.strip_prefix(before).unwrap().strip_suffix(after).unwrap();
        assert!(before.ends_with('>') && after.starts_with("</script>"));
        assert!(!inside.contains(['<', '\u{2028}', '\u{2029}']));
        let (was, is): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(data).unwrap(), serde_json::from_str(inside).unwrap());
        assert_eq!(was, is);
    }

    #[test]
    fn the_page_is_small_and_asks_for_nothing() {
        assert!(PAGE.len() < 30_000, "{} bytes in every library", PAGE.len());
        assert_eq!(PAGE.matches(MARK).count(), 1);
        for word in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!PAGE.contains(word), "{word}");
        }
        assert!(PAGE.contains("default-src 'none'"));
    }
}
