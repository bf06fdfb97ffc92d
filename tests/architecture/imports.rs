//! Reads which file of `src/` imports which: `use` paths and paths in the code, without what is `#[cfg(test)]`.
//!
//! A path leads to the file that defines what it names: a re-export is a signpost, and neither the file that puts it up
//! nor a `mod` line imports anything by it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};

/// The place of a module in the crate: `["worker", "run"]`.
pub type Module = Vec<String>;

/// All imports of a crate.
#[derive(Default)]
pub struct Imports {
    /// Every module's file, by the path of the module; that of the crate itself is left out.
    pub files: BTreeMap<Module, String>,
    /// One for each pair of files, in their order.
    pub arrows: Vec<Arrow>,
    /// The files that name the redis client.
    pub redis: BTreeSet<String>,
    /// What can't be followed: `use` with a star outside tests.
    pub stars: Vec<String>,
}

/// A file imports something of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    pub from: String,
    /// The first line that does.
    line: usize,
    pub to: String,
    /// The path as it stands there.
    path: String,
    pub from_module: Module,
    pub to_module: Module,
}

/// One module that has a file of its own.
#[derive(Default)]
struct Source {
    file: String,
    children: HashSet<String>,
    /// What it defines, by name.
    items: HashSet<String>,
    /// What its `use` lines bring in: name, the path that leads there, where, and whether it is a re-export.
    uses: Vec<Use>,
    /// Every other path in its code that has two segments or more, with its line.
    paths: Vec<(Vec<String>, usize)>,
    /// The first words of all its paths: what a re-export has to be among, to be used in the file itself too.
    heads: HashSet<String>,
    stars: Vec<usize>,
}

struct Use {
    name: String,
    path: Vec<String>,
    line: usize,
    is_public: bool,
}

impl Imports {
    /// Reads the crate whose root is `src/lib.rs` below `root`.
    pub fn read(root: &Path) -> Self {
        let mut sources = HashMap::new();
        read_module(
            root,
            Path::new("src/lib.rs"),
            Path::new("src"),
            Module::new(),
            &mut sources,
        );
        let mut imports = Imports::default();
        for (module, source) in &sources {
            // What the crate offers is no part of what its files need of each other.
            if module.is_empty() {
                continue;
            }
            imports.files.insert(module.clone(), source.file.clone());
            let star = |line| format!("{}:{line}", source.file);
            imports.stars.extend(source.stars.iter().map(star));
            for (path, line) in source.needs() {
                if path[0] == "redis" && !source.children.contains("redis") {
                    imports.redis.insert(source.file.clone());
                }
                let seen = &mut HashSet::new();
                if let Some(to_module) = target(&sources, module, &path, seen)
                    && to_module != *module
                {
                    imports.arrows.push(Arrow {
                        from: source.file.clone(),
                        line,
                        to: sources[&to_module].file.clone(),
                        path: path.join("::"),
                        from_module: module.clone(),
                        to_module,
                    });
                }
            }
        }
        imports.arrows.sort();
        let mut pairs = HashSet::new();
        imports
            .arrows
            .retain(|arrow| pairs.insert((arrow.from.clone(), arrow.to.clone())));
        imports
            .arrows
            .sort_by(|a, b| (&a.from, &a.to).cmp(&(&b.from, &b.to)));
        imports.stars.sort();
        imports
    }

    /// Files that need each other, however far around: every strongly connected part of more than one.
    pub fn circles(&self) -> Vec<BTreeSet<&str>> {
        let files: BTreeSet<&str> = self.files.values().map(String::as_str).collect();
        let reach: HashMap<&str, HashSet<&str>> = files
            .iter()
            .map(|file| (*file, self.reachable(file)))
            .collect();
        let mut circles: Vec<BTreeSet<&str>> = Vec::new();
        for file in &files {
            if !reach[file].contains(file) || circles.iter().any(|circle| circle.contains(file)) {
                continue;
            }
            let around = files
                .iter()
                .filter(|other| reach[file].contains(*other) && reach[*other].contains(file));
            circles.push(around.copied().collect());
        }
        circles
    }

    fn reachable(&self, from: &str) -> HashSet<&str> {
        let mut seen = HashSet::new();
        let mut waiting = vec![from];
        while let Some(file) = waiting.pop() {
            for arrow in self.arrows.iter().filter(|arrow| arrow.from == file) {
                if seen.insert(&arrow.to[..]) {
                    waiting.push(&arrow.to);
                }
            }
        }
        seen
    }
}

impl fmt::Display for Arrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Arrow {
            from,
            line,
            to,
            path,
            ..
        } = self;
        write!(f, "{from}:{line} imports {path} of {to}")
    }
}

impl Source {
    /// The paths that the file needs something by.
    fn needs(&self) -> Vec<(Vec<String>, usize)> {
        let used = self
            .uses
            .iter()
            .filter(|one| !one.is_public || self.heads.contains(&one.name))
            .map(|one| (one.path.clone(), one.line));
        used.chain(self.paths.iter().cloned()).collect()
    }

    fn visit(&mut self, items: &[syn::Item]) {
        for item in items {
            if is_for_tests(attributes(item)) {
                continue;
            }
            match item {
                syn::Item::Use(item) => {
                    let is_public = !matches!(item.vis, syn::Visibility::Inherited);
                    self.add_use(&item.tree, &mut Vec::new(), is_public);
                }
                syn::Item::Mod(item) if item.content.is_none() => {
                    self.children.insert(item.ident.to_string());
                }
                _ => {
                    self.items.extend(name_of(item));
                    Visitor(self).visit_item(item);
                }
            }
        }
    }

    fn add_use(&mut self, tree: &syn::UseTree, before: &mut Vec<String>, is_public: bool) {
        let mut add = |ident: &syn::Ident, name: &syn::Ident| {
            let mut path = before.clone();
            let mut name = name.to_string();
            if ident == "self" {
                name = path.last().cloned().unwrap_or(name);
            } else {
                path.push(ident.to_string());
            }
            let line = ident.span().start().line;
            self.uses.push(Use {
                name,
                path,
                line,
                is_public,
            });
        };
        match tree {
            syn::UseTree::Name(one) => add(&one.ident, &one.ident),
            syn::UseTree::Rename(one) => add(&one.ident, &one.rename),
            syn::UseTree::Path(one) => {
                before.push(one.ident.to_string());
                self.add_use(&one.tree, before, is_public);
                before.pop();
            }
            syn::UseTree::Group(group) => {
                for one in &group.items {
                    self.add_use(one, before, is_public);
                }
            }
            syn::UseTree::Glob(star) => {
                let is_ours = before.first().is_some_and(|head| {
                    ["crate", "self", "super"].contains(&&head[..]) || self.children.contains(head)
                });
                if is_ours {
                    self.stars.push(star.star_token.spans[0].start().line);
                }
            }
            #[allow(unreachable_patterns)]
            _ => {}
        }
    }

    fn add_path(&mut self, path: Vec<String>, line: usize) {
        self.heads.extend(path.first().cloned());
        if path.len() > 1 {
            self.paths.push((path, line));
        }
    }

    /// The paths in the arguments or the body of a macro or an attribute, which are not parsed.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.add_tokens(group.stream()),
                TokenTree::Ident(ident) => {
                    let line = ident.span().start().line;
                    let mut path = vec![ident.to_string()];
                    while let [
                        TokenTree::Punct(a),
                        TokenTree::Punct(b),
                        TokenTree::Ident(next),
                        ..,
                    ] = &tokens[at + 1..]
                        && (a.as_char(), b.as_char()) == (':', ':')
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    self.add_path(path, line);
                }
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    let path: Vec<String> = text
                        .trim_matches('"')
                        .split("::")
                        .map(str::to_owned)
                        .collect();
                    let is_word = |word: &String| syn::parse_str::<syn::Ident>(word).is_ok();
                    if text.starts_with('"') && path.len() > 1 && path.iter().all(is_word) {
                        self.add_path(path, literal.span().start().line);
                    }
                }
                TokenTree::Punct(_) => {}
            }
            at += 1;
        }
    }
}

struct Visitor<'a>(&'a mut Source);

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        match item {
            _ if is_for_tests(attributes(item)) => {}
            // One that stands within a function.
            syn::Item::Use(item) => self.0.add_use(&item.tree, &mut Vec::new(), false),
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes = match item {
            syn::ImplItem::Fn(one) => &one.attrs,
            syn::ImplItem::Const(one) => &one.attrs,
            _ => &Vec::new(),
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let line = path.segments[0].ident.span().start().line;
            let names = path.segments.iter().map(|one| one.ident.to_string());
            self.0.add_path(names.collect(), line);
        }
        visit::visit_path(self, path);
    }

    /// `#[arg(value_parser = duration::parse)]` and `#[serde(serialize_with = "duration::serialize")]`.
    fn visit_attribute(&mut self, one: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &one.meta {
            self.0.add_tokens(list.tokens.clone());
        }
    }

    fn visit_macro(&mut self, one: &'ast syn::Macro) {
        self.0.add_tokens(one.tokens.clone());
        visit::visit_macro(self, one);
    }
}

/// Reads a module's file and those of the modules it declares.
fn read_module(
    root: &Path,
    file: &Path,
    folder: &Path,
    module: Module,
    sources: &mut HashMap<Module, Source>,
) {
    let text = std::fs::read_to_string(root.join(file))
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let parsed =
        syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut source = Source {
        file: file.display().to_string(),
        ..Source::default()
    };
    source.visit(&parsed.items);
    for child in &source.children {
        let (flat, nested) = (format!("{child}.rs"), format!("{child}/mod.rs"));
        let candidates: [PathBuf; 2] = [folder.join(flat), folder.join(nested)];
        let file = candidates
            .iter()
            .find(|file| root.join(file).exists())
            .unwrap_or_else(|| panic!("{}: no file for `mod {child}`", source.file));
        let path = module.iter().chain([child]).cloned().collect();
        read_module(root, file, &folder.join(child), path, sources);
    }
    sources.insert(module, source);
}

/// The module that defines what a path names, as seen from a module; none for what is not of this crate.
fn target(
    sources: &HashMap<Module, Source>,
    from: &[String],
    path: &[String],
    seen: &mut HashSet<(Module, Vec<String>)>,
) -> Option<Module> {
    if !seen.insert((from.to_vec(), path.to_vec())) {
        return None;
    }
    let source = &sources[from];
    let (head, rest) = path.split_first()?;
    let mut at = from.to_vec();
    match &head[..] {
        "crate" => at.clear(),
        "self" => {}
        "super" => {
            at.pop();
        }
        name if source.children.contains(name) => at.push(name.to_owned()),
        name => {
            // A name that a `use` brought in leads on only if it is a module's: items have no files below them.
            let one = source.uses.iter().find(|one| one.name == name)?;
            let whole: Vec<String> = one.path.iter().chain(rest).cloned().collect();
            return target(sources, from, &whole, seen);
        }
    }
    for (place, name) in rest.iter().enumerate() {
        let here = &sources[&at];
        if name == "super" {
            at.pop();
        } else if here.children.contains(name) {
            at.push(name.clone());
        } else if here.items.contains(name) {
            return Some(at);
        } else if let Some(one) = here.uses.iter().find(|one| &one.name == name) {
            let whole: Vec<String> = one.path.iter().chain(&rest[place + 1..]).cloned().collect();
            return target(sources, &at, &whole, seen);
        } else {
            // A macro stands at the root, wherever it is written.
            let mark = format!("{name}!");
            let mut all = sources.iter().filter(|_| at.is_empty());
            return all
                .find(|(_, source)| source.items.contains(&mark))
                .map(|(module, _)| module.clone());
        }
    }
    // A module by itself: what is needed of it stands where it is used.
    None
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether it is compiled for tests only.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    let conditions = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .filter_map(|attribute| attribute.parse_args::<syn::Meta>().ok());
    conditions
        .into_iter()
        .any(|condition| needs_tests(&condition))
}

/// `test`, `doctest`, or one of them in `all(…)`.
fn needs_tests(condition: &syn::Meta) -> bool {
    match condition {
        syn::Meta::Path(path) => path.is_ident("test") || path.is_ident("doctest"),
        syn::Meta::List(list) if list.path.is_ident("all") => list
            .parse_args_with(Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated)
            .is_ok_and(|all| all.iter().any(needs_tests)),
        _ => false,
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    let name = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Mod(item) => &item.ident,
        syn::Item::Macro(item) => {
            let name = item.ident.as_ref()?;
            let is_exported = item
                .attrs
                .iter()
                .any(|one| one.path().is_ident("macro_export"));
            return Some(if is_exported {
                format!("{name}!")
            } else {
                name.to_string()
            });
        }
        _ => return None,
    };
    Some(name.to_string())
}
