//! The pages under `docs/`: each is in the book, what they link to is there, their code is compiled, and every line of the
//! log that asks for attention is explained.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of the pages, but for the list of them.
fn pages() -> Vec<String> {
    let mut pages: Vec<_> = fs::read_dir(root().join("docs"))
        .expect("docs/")
        .map(|entry| {
            entry
                .expect("a file")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .filter(|name| name.ends_with(".md") && name != "SUMMARY.md")
        .collect();
    pages.sort();
    pages
}

/// Where a text leads: `target` of each `[text](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    heading
        .trim_matches(['#', ' '])
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn every_page_is_in_the_book() {
    let summary = read("docs/SUMMARY.md");
    let listed: BTreeSet<_> = links(&summary).map(str::to_owned).collect();
    let there: BTreeSet<_> = pages().into_iter().collect();
    assert_eq!(listed, there);
}

#[test]
fn every_link_leads_somewhere() {
    let mut astray = Vec::new();
    for from in pages()
        .iter()
        .map(|page| format!("docs/{page}"))
        .chain(["README.md".into()])
    {
        let text = read(&from);
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(&from).parent().expect("a folder");
            let to = if file.is_empty() {
                PathBuf::from(&from)
            } else {
                folder.join(file)
            };
            if !root().join(&to).exists() {
                astray.push(format!("{from}: {link}"));
            } else if !fragment.is_empty() {
                let text = read(&to);
                let headings = text.lines().filter(|line| line.starts_with('#'));
                if !headings.map(anchor).any(|anchor| anchor == fragment) {
                    astray.push(format!("{from}: {link}: no such heading"));
                }
            }
        }
    }
    assert!(astray.is_empty(), "{astray:#?}");
}

#[test]
fn the_code_of_every_page_is_compiled() {
    let lib = read("src/lib.rs");
    for page in pages() {
        if read(format!("docs/{page}")).contains("```rust") {
            assert!(
                lib.contains(&format!("\"../docs/{page}\"")),
                "add docs/{page} to `pages!` in src/lib.rs"
            );
        }
    }
}

#[test]
fn every_warning_is_explained() {
    let catalogue = read("docs/messages.md");
    let mut unknown = Vec::new();
    for file in sources(&root().join("src")) {
        let text = fs::read_to_string(&file).expect("a source file");
        let tokens: TokenStream = text.parse().expect("Rust");
        for message in messages(tokens) {
            // What is put in differs; what stands before it, or behind, tells the line.
            let told = message
                .split(['{', '}'])
                .map(|part| part.trim_matches([' ', ':', ';', ',']));
            let told = told.max_by_key(|part| part.len()).unwrap_or_default();
            let begins = told.get(..60.min(told.len())).unwrap_or(told);
            if begins.len() > 8 && !catalogue.contains(begins) {
                unknown.push(format!("{}: {message}", file.display()));
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "docs/messages.md does not have {unknown:#?}"
    );
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

/// The text of every `warn!` and `error!`: the last literal at the top of its arguments that is a sentence.
fn messages(tokens: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    let tokens: Vec<_> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else {
            continue;
        };
        let is_macro = at >= 2
            && matches!(&tokens[at - 1], TokenTree::Punct(mark) if mark.as_char() == '!')
            && matches!(&tokens[at - 2], TokenTree::Ident(name) if name == "warn" || name == "error");
        if is_macro {
            let literals = group.stream().into_iter().filter_map(|token| match token {
                TokenTree::Literal(literal) => {
                    syn::parse_str::<syn::LitStr>(&literal.to_string()).ok()
                }
                _ => None,
            });
            found.extend(
                literals
                    .map(|literal| literal.value())
                    .filter(|text| text.contains(' ')),
            );
        } else {
            found.extend(messages(group.stream()));
        }
    }
    found
}
