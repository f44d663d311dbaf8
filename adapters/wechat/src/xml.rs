//! A strict reader of the platform's small documents.
//!
//! quick-xml never fetches entities, but it accepts a DOCTYPE, a second root and raw control
//! characters in silence; here the first two are refused, and the third is left to
//! [`intake_contract::clean_text`], because the platform really sends it.

use quick_xml::{Reader, events::Event};

/// Why a document was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// Not well-formed.
    #[error("not well-formed")]
    Malformed,
    /// Well-formed, and never sent by the platform: DOCTYPE, foreign entities, a second root,
    /// doubled fields, too deep, too large.
    #[error("not allowed")]
    Forbidden,
}

/// Bounds of a document (S05).
const DEPTH: usize = 16;
const ATTRIBUTES: usize = 16;
const ELEMENTS: usize = 512;

/// An element: its own text (text, CDATA and references joined) and its children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name.
    pub name: String,
    /// Its own text. White space around CDATA is layout and left out.
    pub text: String,
    /// What it holds, in order.
    pub children: Vec<Element>,
}

impl Element {
    /// Reads a document and returns its root.
    ///
    /// # Errors
    /// [`XmlError`].
    pub fn parse(text: &str) -> Result<Self, XmlError> {
        let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
        reader.config_mut().check_end_names = true;
        let mut open: Vec<Building> = Vec::new();
        let mut root: Option<Element> = None;
        let mut elements = 0;
        loop {
            let event = reader.read_event().map_err(|_| XmlError::Malformed)?;
            let (start, ends_at_once) = match event {
                Event::Start(start) => (start, false),
                Event::Empty(start) => (start, true),
                Event::End(_) => {
                    let done = open.pop().ok_or(XmlError::Malformed)?.finish();
                    close(done, &mut open, &mut root);
                    continue;
                }
                Event::Text(text) => {
                    match open.last_mut() {
                        Some(building) => building.text(&text),
                        None if text.trim().is_empty() => {}
                        None => return Err(XmlError::Malformed),
                    }
                    continue;
                }
                Event::CData(data) => {
                    open.last_mut().ok_or(XmlError::Malformed)?.cdata(&data);
                    continue;
                }
                Event::GeneralRef(reference) => {
                    let building = open.last_mut().ok_or(XmlError::Malformed)?;
                    let resolved = match reference.resolve_char_ref() {
                        Ok(Some(c)) => c,
                        Ok(None) => match &*reference {
                            "amp" => '&',
                            "lt" => '<',
                            "gt" => '>',
                            "quot" => '"',
                            "apos" => '\'',
                            _ => return Err(XmlError::Forbidden),
                        },
                        Err(_) => return Err(XmlError::Malformed),
                    };
                    building.reference(resolved);
                    continue;
                }
                Event::Comment(_) | Event::Decl(_) => continue,
                Event::DocType(_) | Event::PI(_) => return Err(XmlError::Forbidden),
                Event::Eof => break,
            };
            elements += 1;
            if root.is_some() || open.len() >= DEPTH || elements > ELEMENTS {
                return Err(XmlError::Forbidden);
            }
            let mut attributes = 0;
            for attribute in start.attributes() {
                attribute.map_err(|_| XmlError::Malformed)?;
                attributes += 1;
                if attributes > ATTRIBUTES {
                    return Err(XmlError::Forbidden);
                }
            }
            let name = start.name().as_ref().to_owned();
            let building =
                Building { element: Element { name, ..Element::default() }, ..Building::default() };
            if ends_at_once {
                close(building.finish(), &mut open, &mut root);
            } else {
                open.push(building);
            }
        }
        if !open.is_empty() {
            return Err(XmlError::Malformed);
        }
        root.ok_or(XmlError::Malformed)
    }

    /// The child of this name; `None` when there is none.
    ///
    /// # Errors
    /// [`XmlError::Forbidden`] when there are several.
    pub fn child(&self, name: &str) -> Result<Option<&Self>, XmlError> {
        let mut found = self.children.iter().filter(|child| child.name == name);
        let first = found.next();
        if found.next().is_some() { Err(XmlError::Forbidden) } else { Ok(first) }
    }

    /// The text of the child of this name, trimmed; empty when there is none.
    ///
    /// # Errors
    /// As [`Self::child`].
    pub fn field(&self, name: &str) -> Result<String, XmlError> {
        Ok(self.child(name)?.map(|child| child.text.trim().to_owned()).unwrap_or_default())
    }
}

fn close(done: Element, open: &mut [Building], root: &mut Option<Element>) {
    match open.last_mut() {
        Some(parent) => parent.element.children.push(done),
        None => *root = Some(done),
    }
}

#[derive(Default)]
struct Building {
    element: Element,
    /// Text outside CDATA, kept apart until it is known whether it is layout.
    plain: String,
    has_cdata: bool,
}

impl Building {
    fn text(&mut self, text: &str) {
        self.plain.push_str(text);
    }

    fn reference(&mut self, c: char) {
        self.plain.push(c);
        // A reference is meant; what stands beside it is no layout.
        self.flush(true);
    }

    fn cdata(&mut self, data: &str) {
        self.flush(false);
        self.element.text.push_str(data);
        self.has_cdata = true;
    }

    fn flush(&mut self, meant: bool) {
        if meant || !self.plain.trim().is_empty() {
            self.element.text.push_str(&self.plain);
        }
        self.plain.clear();
    }

    fn finish(mut self) -> Element {
        let meant = !self.has_cdata;
        self.flush(meant);
        self.element
    }
}
