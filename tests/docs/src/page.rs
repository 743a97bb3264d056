//! One Markdown file.

use std::collections::{BTreeMap, BTreeSet};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::fence::Fence;
use crate::repository;

/// What the tests want to know of it.
#[derive(Debug, Default)]
pub struct Page {
    /// From the repository's root.
    pub path: String,
    /// Fences and indented blocks, in their order.
    pub fences: Vec<Fence>,
    /// Where its links and pictures point to, with their lines.
    pub links: Vec<(usize, String)>,
    /// Texts in backticks outside of fences, with their lines.
    pub codes: Vec<(usize, String)>,
    /// What `#...` can name in it, as GitHub forms it from headings.
    pub anchors: BTreeSet<String>,
    /// Its tables, by the heading above.
    pub tables: Vec<Table>,
}

/// A table's rows, the heading's left out.
#[derive(Debug, Default, Clone)]
pub struct Table {
    /// The heading that it stands under.
    pub under: String,
    /// Its own heading row.
    pub heading: Vec<Cell>,
    /// The other rows.
    pub rows: Vec<Vec<Cell>>,
}

/// What stands in one field of a table.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cell {
    /// All of it, without marks.
    pub text: String,
    /// What is in backticks.
    pub codes: Vec<String>,
}

impl Page {
    /// Reads a file of the repository.
    pub fn read(path: &str) -> Self {
        Self::parse(path, &repository::read(path))
    }

    /// Every page there is.
    pub fn all() -> Vec<Self> {
        repository::files("", "md").iter().map(|path| Self::read(path)).collect()
    }

    /// The table under a heading.
    pub fn table(&self, under: &str) -> &Table {
        let found = self.tables.iter().find(|table| table.under == under);
        found.unwrap_or_else(|| panic!("{} has no table under {under:?}", self.path))
    }

    fn parse(path: &str, text: &str) -> Self {
        let mut page = Self { path: path.to_owned(), ..Self::default() };
        let mut slugs = BTreeMap::new();
        let mut heading: Option<String> = None;
        let mut under = String::new();
        let mut scene = None;
        let mut fence: Option<Fence> = None;
        let mut cell: Option<Cell> = None;
        let mut row = Vec::new();
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            let line = text[..range.start].matches('\n').count() + 1;
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    under = heading.take().unwrap_or_default();
                    page.anchors.insert(slug(&under, &mut slugs));
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push((line, dest_url.to_string()));
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let info = match kind {
                        CodeBlockKind::Fenced(info) => info.to_string(),
                        CodeBlockKind::Indented => "(indented)".to_owned(),
                    };
                    fence = Some(Fence { line, info, scene: scene.take(), text: String::new() });
                }
                Event::End(TagEnd::CodeBlock) => page.fences.extend(fence.take()),
                Event::Html(html) => scene = named_scene(&html).or(scene),
                Event::Start(Tag::Table(_)) => page.tables.push(Table { under: under.clone(), ..Table::default() }),
                Event::Start(Tag::TableCell) => cell = Some(Cell::default()),
                Event::End(TagEnd::TableCell) => row.extend(cell.take()),
                Event::End(TagEnd::TableHead) => {
                    if let Some(table) = page.tables.last_mut() {
                        table.heading = std::mem::take(&mut row);
                    }
                }
                Event::End(TagEnd::TableRow) => {
                    if let Some(table) = page.tables.last_mut() {
                        table.rows.push(std::mem::take(&mut row));
                    }
                }
                Event::Code(code) => {
                    page.codes.push((line, code.to_string()));
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    if let Some(cell) = &mut cell {
                        cell.codes.push(code.to_string());
                        cell.text.push_str(&code);
                    }
                }
                Event::Text(words) => {
                    if let Some(fence) = &mut fence {
                        fence.text.push_str(&words);
                    } else if let Some(heading) = &mut heading {
                        heading.push_str(&words);
                    } else if let Some(cell) = &mut cell {
                        cell.text.push_str(&words);
                    }
                }
                _ => {}
            }
        }
        page
    }
}

fn named_scene(html: &str) -> Option<String> {
    Some(html.trim().strip_prefix("<!-- scene: ")?.strip_suffix(" -->")?.to_owned())
}

/// As GitHub makes anchors: lower case, blanks become hyphens, punctuation goes, and a number tells equal ones apart.
fn slug(heading: &str, seen: &mut BTreeMap<String, usize>) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    let plain: String = kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect();
    let before = seen.entry(plain.clone()).or_default();
    *before += 1;
    if *before == 1 { plain } else { format!("{plain}-{}", *before - 1) }
}
