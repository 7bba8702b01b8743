//! Writes the checks of src/lib.rs: what bindgen says alloc.h declares, against the library's items.

use quote::{format_ident, quote};
use std::path::{Path, PathBuf};
use std::{env, fs, panic};
use syn::{ForeignItem, Item, ReturnType};

/// The header's structs, and the paths of their Rust twins.
const STRUCTS: [(&str, &str); 16] = [
    ("ak_stats", "allokit_core::Stats"),
    ("ak_site", "allokit_core::Site"),
    ("ak_site_info", "allokit_select::leaks::SiteInfo"),
    ("ak_place", "allokit_core::Place"),
    ("ak_fault", "allokit_core::Fault"),
    ("ak_fail_filter", "allokit_select::fail::FailFilter"),
    ("ak_heap_opts", "allokit_c_exports::HeapOpts"),
    ("ak_heap_stats_t", "allokit_c_exports::HeapStats"),
    ("ak_arena_opts", "allokit_c_exports::ArenaOpts"),
    ("ak_arena_stats_t", "allokit_c_exports::ArenaStats"),
    ("ak_arena_mark_t", "allokit_arena::arena::Mark"),
    ("ak_region_stats_t", "allokit_c_exports::RegionStats"),
    ("ak_pool_opts", "allokit_c_exports::PoolOpts"),
    ("ak_stack_opts", "allokit_c_exports::StackOpts"),
    ("ak_stack_mark_t", "allokit_arena::stack::Mark"),
    ("ak_scratch", "allokit_arena::scratch::Stretch"),
];

/// Those of which a program knows no more than that their words are the library's.
const CLOSED: [&str; 3] = ["ak_arena_mark_t", "ak_stack_mark_t", "ak_scratch"];

/// Types that C sees as a name only.
const OPAQUE: [(&str, &str); 7] = [
    ("ak_snapshot", "allokit_select::leaks::RawSnapshot"),
    ("ak_heap", "allokit_heap::Raw"),
    ("ak_arena", "allokit_arena::arena::Raw"),
    ("ak_region", "allokit_arena::region::Raw"),
    ("ak_pool", "allokit_arena::pool::Raw"),
    ("ak_stack", "allokit_arena::stack::Raw"),
    ("__va_list_tag", "allokit_platform::va::VaList"),
];

/// The numbers of faults.
const FAULTS: [(&str, &str); 14] = [
    ("DOUBLE_FREE", "DoubleFree"),
    ("INVALID_FREE", "InvalidFree"),
    ("OVERFLOW", "Overflow"),
    ("UNDERFLOW", "Underflow"),
    ("WRITE_AFTER_FREE", "WriteAfterFree"),
    ("SIZE_MISMATCH", "SizeMismatch"),
    ("ALLOCATOR_MISMATCH", "AllocatorMismatch"),
    ("LEAK", "Leak"),
    ("OUT_OF_MEMORY", "OutOfMemory"),
    ("CORRUPTED_ARENA", "CorruptedArena"),
    ("USE_AFTER_RESET", "UseAfterReset"),
    ("USE_AFTER_DESTROY", "UseAfterDestroy"),
    ("OUT_OF_ORDER", "OutOfOrder"),
    ("READ_AFTER_FREE", "ReadAfterFree"),
];

fn main() {
    println!("cargo::rerun-if-env-changed=ALLOKIT_ABI");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../include");
    // The header may be another one: a changed copy, to see that the check notices.
    println!("cargo::rerun-if-env-changed=ALLOKIT_ABI_HEADER");
    let header = env::var_os("ALLOKIT_ABI_HEADER").map_or_else(|| include.join("alloc.h"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", header.display());
    println!("cargo::rerun-if-changed={}", include.display());
    let silent = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let parsed = panic::catch_unwind(|| read(&header)); // bindgen panics where there is no libclang
    panic::set_hook(silent);
    let (checks, functions) = match parsed {
        Ok(items) => checks(&items),
        Err(_) if env::var_os("ALLOKIT_ABI").is_some_and(|value| value == "required") => {
            panic!("libclang is missing; install it (on Debian: apt-get install libclang-dev)")
        }
        Err(_) => {
            println!("cargo::warning=libclang is missing: alloc.h is not checked against the library's functions");
            (String::new(), "&[]".to_string())
        }
    };
    fs::write(out.join("checks.rs"), checks).expect("OUT_DIR can be written");
    fs::write(out.join("functions.rs"), functions).expect("OUT_DIR can be written");
}

fn read(header: &Path) -> Vec<Item> {
    let bindings = bindgen::Builder::default()
        .header(header.to_str().expect("the path is text"))
        .allowlist_item("(ak|AK)_.*")
        .use_core()
        .layout_tests(false)
        .derive_copy(false)
        .derive_debug(false)
        .generate_comments(false)
        .formatter(bindgen::Formatter::None)
        .generate()
        .expect("alloc.h is C");
    syn::parse_file(&bindings.to_string()).expect("bindgen writes Rust").items
}

/// The source of the checks, and the list of functions as an expression: name and number of arguments.
fn checks(items: &[Item]) -> (String, String) {
    let mut functions = Vec::new();
    let mut constants = Vec::new();
    let mut layouts = Vec::new();
    for item in items {
        if let Item::ForeignMod(block) = item {
            for item in &block.items {
                let ForeignItem::Fn(function) = item else { continue };
                let name = &function.sig.ident;
                let text = name.to_string();
                let arguments: Vec<_> = function.sig.inputs.iter().map(argument_type).collect();
                let count = arguments.len();
                let result = match &function.sig.output {
                    ReturnType::Default => quote!(()),
                    ReturnType::Type(_, result) => quote!(#result),
                };
                constants.push(quote! {
                    const _: unsafe extern "C" fn(#(#arguments),*) -> #result = allokit_c_exports::#name;
                });
                functions.push(quote!((#text, #count)));
            }
        }
        let Item::Struct(item) = item else { continue };
        let name = &item.ident;
        let Some((_, twin)) = STRUCTS.iter().find(|(ours, _)| name == ours) else { continue };
        let twin = path(twin);
        let fields: Vec<_> = item.fields.iter().filter_map(|field| field.ident.as_ref()).collect();
        let fields = if CLOSED.iter().any(|closed| name == closed) { Vec::new() } else { fields };
        layouts.push(quote! {
            const _: () = {
                assert!(size_of::<declared::#name>() == size_of::<#twin>());
                assert!(align_of::<declared::#name>() == align_of::<#twin>());
                #(assert!(
                    core::mem::offset_of!(declared::#name, #fields) == core::mem::offset_of!(#twin, #fields)
                );)*
            };
        });
    }
    assert_eq!(layouts.len(), STRUCTS.len(), "a struct of STRUCTS is not in alloc.h");
    assert!(functions.len() > 50, "alloc.h declares only {} functions", functions.len());
    // In the signatures the structs are the library's own types; their layouts are compared by name below.
    let twinned = || STRUCTS.iter().chain(&OPAQUE);
    let others = items.iter().filter(|item| match item {
        Item::Struct(item) => !twinned().any(|(ours, _)| item.ident == ours),
        Item::Type(item) => !twinned().any(|(ours, _)| item.ident == format!("{ours}_t")),
        Item::ForeignMod(_) => false,
        _ => true,
    });
    let twins = twinned().map(|(ours, twin)| {
        let name = if ours.starts_with("__") || ours.ends_with("_t") {
            format_ident!("{ours}")
        } else {
            format_ident!("{ours}_t")
        };
        let twin = path(twin);
        quote!(use #twin as #name;)
    });
    let structs = items.iter().filter(|item| !matches!(item, Item::ForeignMod(_)));
    let fault_numbers = FAULTS.iter().map(|(ours, twin)| {
        let (ours, twin) = (format_ident!("ak_fault_kind_AK_FAULT_{ours}"), format_ident!("{twin}"));
        quote!(declared::#ours == allokit_core::FaultKind::#twin as u32)
    });
    let checks = quote! {
        #[allow(unused_imports, non_camel_case_types, non_upper_case_globals, dead_code, missing_docs, clippy::all)]
        mod signatures {
            #(#twins)*
            #(#others)*
            #(#constants)*
        }

        #[allow(unused_imports, non_camel_case_types, non_upper_case_globals, dead_code, missing_docs, clippy::all)]
        mod declared {
            #(#structs)*
        }
        #(#layouts)*

        const _: () = {
            use allokit_core::Known;
            assert!(declared::AK_ABI_VERSION == allokit_core::ABI_VERSION);
            #(assert!(#fault_numbers);)*
            assert!(declared::AK_KNOWN_ALLOC_COUNT as u64 == Known::ALLOC_COUNT.0);
            assert!(declared::AK_KNOWN_FREE_COUNT as u64 == Known::FREE_COUNT.0);
            assert!(declared::AK_KNOWN_ALLOC_BYTES as u64 == Known::ALLOC_BYTES.0);
            assert!(declared::AK_KNOWN_FREE_BYTES as u64 == Known::FREE_BYTES.0);
            assert!(declared::AK_KNOWN_CURRENT_BYTES as u64 == Known::CURRENT_BYTES.0);
            assert!(declared::AK_KNOWN_PEAK_BYTES as u64 == Known::PEAK_BYTES.0);
            assert!(declared::AK_KNOWN_RESERVED_BYTES as u64 == Known::RESERVED_BYTES.0);
            assert!(declared::AK_KNOWN_COMMITTED_BYTES as u64 == Known::COMMITTED_BYTES.0);
            assert!(declared::AK_KNOWN_MAPPED_PEAK_BYTES as u64 == Known::MAPPED_PEAK_BYTES.0);
            assert!(declared::AK_KNOWN_THREADS as u64 == Known::THREADS.0);
        };
    };
    (checks.to_string(), quote!(&[#(#functions),*]).to_string())
}

fn path(text: &str) -> syn::Path {
    syn::parse_str(text).expect("a path")
}

fn argument_type(argument: &syn::FnArg) -> syn::Type {
    match argument {
        syn::FnArg::Typed(argument) => (*argument.ty).clone(),
        syn::FnArg::Receiver(_) => unreachable!("C has no self"),
    }
}
