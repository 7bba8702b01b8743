//! Lines for return addresses, out of the debug information of the modules, where their files are still there; and names as
//! people write them.

use crate::data::{Frame, Report};
use indicatif::ProgressBar;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Fills in file, line and function of each return address, and says in the notes what could not be found.
pub fn resolve(report: &mut Report) {
    let mut wanted: HashMap<String, usize> = HashMap::new();
    for frame in report.sites.iter().flat_map(|row| row.frames()) {
        if frame.file.is_none()
            && let Some(module) = &frame.module
        {
            *wanted.entry(module.clone()).or_default() += 1;
        }
    }
    let time = report.time_ns.unwrap_or(u64::MAX);
    let mut modules: HashMap<String, Option<Module>> = HashMap::new();
    let mut names: Vec<_> = wanted.keys().cloned().collect();
    names.sort();
    let mut troubles: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    // Debug information may be large.
    let progress = ProgressBar::new(names.len() as u64).with_message("reading debug information");
    for name in names {
        let (module, trouble) = Module::open(&name, time);
        if let Some(trouble) = trouble {
            let (count, last) = (wanted[&name], name.rsplit('/').next().unwrap_or(&name));
            let sites = if count == 1 { "site" } else { "sites" };
            troubles.entry(trouble).or_default().push(format!("{last} ({count} call {sites})"));
        }
        modules.insert(name, module);
        progress.inc(1);
    }
    progress.finish_and_clear();
    for (trouble, modules) in troubles {
        report.note(format!("{trouble}: {}", modules.join(", ")));
    }
    for frame in report.frames() {
        if frame.file.is_none()
            && let Some(Some(module)) = frame.module.as_ref().map(|name| modules.get(name).and_then(Option::as_ref))
        {
            module.fill(frame);
        }
        for name in [&mut frame.function, &mut frame.symbol].into_iter().flatten() {
            *name = demangled(name);
        }
    }
}

struct Module {
    loader: addr2line::Loader,
    /// Of each address, as the file's beginning counts.
    base: u64,
}

impl Module {
    /// The module, and what its reader should know.
    fn open(name: &str, time_ns: u64) -> (Option<Module>, Option<&'static str>) {
        let path = Path::new(name);
        if name == "linux-vdso.so.1" || name == "[vdso]" {
            return (None, None);
        }
        let Ok(about) = path.metadata() else {
            return (None, Some("not there any more, so without lines"));
        };
        let changed = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        if changed.is_some_and(|changed| changed.as_nanos() > u128::from(time_ns)) {
            return (None, Some("changed since the report, so without lines"));
        }
        let Ok(loader) = addr2line::Loader::new(path) else {
            return (None, Some("not readable as a program or library, so without lines"));
        };
        let has = |section: &[u8]| loader.get_section_range(section).is_some();
        let trouble = match (has(b".debug_line"), has(b".symtab")) {
            (true, _) => None,
            (false, true) => Some("without debug information (-g), so names and no lines"),
            (false, false) => Some("stripped, so only names that are exported, and no lines"),
        };
        let base = loader.relative_address_base();
        (Some(Module { loader, base }), trouble)
    }

    fn fill(&self, frame: &mut Frame) {
        let Some(inside) = frame.in_module() else { return };
        let address = inside + self.base;
        // The innermost: what was inlined there calls the allocator.
        if let Ok(mut frames) = self.loader.find_frames(address)
            && let Ok(Some(found)) = frames.next()
        {
            if let Some(location) = found.location {
                frame.file = location.file.map(str::to_string);
                frame.line = location.line.map(u64::from);
            }
            frame.function = found.function.and_then(|name| Some(name.raw_name().ok()?.into_owned()));
        }
        if frame.function.is_none() {
            // Also names that the module does not export.
            frame.function = self.loader.find_symbol(address).map(str::to_string);
            if frame.file.is_none()
                && let Some(name) = frame.function.take()
            {
                frame.offset =
                    self.loader.find_symbol_info(address).map(|info| address - info.address()).or(frame.offset);
                frame.symbol = Some(name);
            }
        }
    }
}

/// A name of C++ or Rust as it was written.
pub fn demangled(name: &str) -> String {
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    if name.starts_with("_Z")
        && let Ok(symbol) = cpp_demangle::Symbol::new(name)
        && let Ok(text) = symbol.demangle()
    {
        return text.to_string();
    }
    name.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_demangled() {
        assert_eq!(demangled("_ZN5store4growEi"), "store::grow(int)");
        assert_eq!(demangled("_ZN5alloc5boxed3Box3new17h0123456789abcdefE"), "alloc::boxed::Box::new");
        assert_eq!(demangled("_RNvC6_123foo3bar"), "123foo::bar");
        assert_eq!(demangled("main"), "main");
    }
}
