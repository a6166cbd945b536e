//! A JSON array as text that shares what it has in common with an earlier one.
//!
//! A worker reads its job before each batch, and JavaScript keeps what it read until a garbage collection. Between two reads few batches change, so
//! the text is cut into chunks, and a chunk that is equal to the earlier one costs neither memory nor parsing.

use std::sync::Arc;

use serde_json::value::RawValue;

/// Enough that a job of 100,000 batches has few chunks, few enough that a changed batch costs only some kilobytes.
const ITEMS_PER_CHUNK: usize = 64;

/// An immutable array. A clone shares its text.
#[derive(Clone, Debug)]
pub struct SharedArray {
    chunks: Arc<[Arc<Chunk>]>,
}

/// Consecutive items, as they stand in the array, with what is between them.
#[derive(Debug)]
pub struct Chunk {
    text: Box<str>,
    /// The start and the end of each item in `text`.
    places: Box<[(u32, u32)]>,
}

impl Chunk {
    pub fn items(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.places.iter().map(|(start, end)| &self.text[*start as usize..*end as usize])
    }

    /// A chunk of these items.
    pub fn of<'i>(items: impl Iterator<Item = &'i str>) -> Self {
        let (mut text, mut places) = (String::new(), Vec::new());
        for item in items {
            if !places.is_empty() {
                text.push(',');
            }
            let start = text.len();
            text.push_str(item);
            places.push((start as u32, text.len() as u32));
        }
        Self {
            text: text.into(),
            places: places.into(),
        }
    }
}

impl SharedArray {
    /// Reads an array of objects or arrays, each of which `accept` accepts. `None` if the text is anything else. Items in chunks that are shared with
    /// `earlier` were accepted then.
    pub fn read(json: &str, earlier: Option<&Self>, accept: impl Fn(&str) -> bool) -> Option<Self> {
        let earlier = earlier.map_or(&[][..], |earlier| &earlier.chunks);
        let mut chunks: Vec<Arc<Chunk>> = Vec::with_capacity(earlier.len());
        let mut rest = json.trim_ascii().strip_prefix('[')?.trim_ascii_start();
        let mut ends = rest == "]";
        while !ends {
            let shared = earlier.get(chunks.len()).filter(|chunk| begins_with(rest, chunk));
            let chunk = match shared {
                Some(chunk) => chunk.clone(),
                None => Arc::new(read_chunk(rest, &accept)?),
            };
            rest = rest[chunk.text.len()..].trim_ascii_start();
            chunks.push(chunk);
            match rest.strip_prefix(',') {
                Some(after) => rest = after.trim_ascii_start(),
                None if rest == "]" => ends = true,
                None => return None,
            }
        }
        Some(Self { chunks: chunks.into() })
    }

    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.places.len()).sum()
    }

    /// The length of the text.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.text.len() + 2).sum()
    }

    pub fn items(&self) -> impl Iterator<Item = &str> {
        self.chunks.iter().flat_map(|chunk| chunk.items())
    }

    pub fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// The array with other chunks in the places of some.
    pub fn with_chunks(&self, changed: Vec<(usize, Chunk)>) -> Self {
        let mut chunks = self.chunks.to_vec();
        for (at, chunk) in changed {
            if chunks[at].text != chunk.text {
                chunks[at] = Arc::new(chunk);
            }
        }
        Self { chunks: chunks.into() }
    }

    /// How many chunks the two have in common.
    #[cfg(test)]
    pub fn shared_with(&self, other: &Self) -> usize {
        let is_there = |chunk: &&Arc<Chunk>| other.chunks.iter().any(|theirs| Arc::ptr_eq(chunk, theirs));
        self.chunks.iter().filter(is_there).count()
    }
}

/// Whether the next items are those of the chunk. Objects and arrays end with their last bracket, so equal text is equal items. A chunk that is not
/// full only serves at the end, or else an array that grows would fall into many small chunks.
fn begins_with(rest: &str, chunk: &Chunk) -> bool {
    rest.strip_prefix(&*chunk.text)
        .is_some_and(|after| chunk.places.len() >= ITEMS_PER_CHUNK || after.trim_ascii_start() == "]")
}

fn read_chunk(text: &str, accept: impl Fn(&str) -> bool) -> Option<Chunk> {
    let mut places = Vec::with_capacity(ITEMS_PER_CHUNK);
    let mut at = 0;
    loop {
        if !text[at..].starts_with(['{', '[']) {
            return None;
        }
        let mut items = serde_json::Deserializer::from_str(&text[at..]).into_iter::<&RawValue>();
        let item = items.next()?.ok()?.get();
        if !accept(item) {
            return None;
        }
        let end = at + item.len();
        places.push((u32::try_from(at).ok()?, u32::try_from(end).ok()?));
        let after = text[end..].trim_ascii_start();
        match after.strip_prefix(',') {
            Some(next) if places.len() < ITEMS_PER_CHUNK => at = text.len() - next.trim_ascii_start().len(),
            _ => {
                return Some(Chunk {
                    text: text[..end].into(),
                    places: places.into(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, earlier: Option<&SharedArray>) -> Option<SharedArray> {
        SharedArray::read(json, earlier, |item| item != "{}")
    }

    fn array(items: impl Iterator<Item = usize>, separator: &str) -> String {
        let items: Vec<String> = items.map(|item| format!("[{item}, \"],[\"]")).collect();
        format!(" [ {} ] ", items.join(separator))
    }

    #[test]
    fn equal_chunks_are_shared_and_the_others_are_not() {
        let first = read(&array(0..1_000, " , "), None).unwrap();
        assert_eq!((first.len(), first.chunks().len()), (1_000, 16));
        let changed = array((0..1_000).map(|item| if item == 100 { 7 } else { item }), " , ");
        let second = read(&changed, Some(&first)).unwrap();
        assert_eq!(second.shared_with(&first), 15);
        assert_eq!(second.items().nth(100), Some("[7, \"],[\"]"));
        assert!(second.items().eq(read(&changed, None).unwrap().items()));
        // One that has grown ends in a full chunk, not in two small ones.
        let longer = read(&array(0..1_001, " , "), Some(&first)).unwrap();
        assert_eq!((longer.len(), longer.chunks().len(), longer.shared_with(&first)), (1_001, 16, 15));
        let shorter = read(&array(0..64, " , "), Some(&first)).unwrap();
        assert_eq!((shorter.len(), shorter.shared_with(&first)), (64, 1));
        assert_eq!(read("[]", Some(&first)).unwrap().len(), 0);
    }

    #[test]
    fn what_is_no_array_of_objects_or_arrays_is_refused() {
        let earlier = read("[[1],[2]]", None);
        for text in [
            "",
            "[",
            "]",
            "{}",
            "[1]",
            "[[1]",
            "[[1],]",
            "[,[1]]",
            "[[1]]]",
            "[[1] [2]]",
            "[[1],[2",
            "[{}]",
            "[[1],[2]}",
            "[[1],[2],3]",
            "null",
        ] {
            assert!(read(text, None).is_none(), "{text}");
            assert!(read(text, earlier.as_ref()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_chunk_is_replaced_by_its_successor() {
        let first = read(&array(0..200, ","), None).unwrap();
        let items: Vec<&str> = first.chunks()[1].items().collect();
        let same = Chunk::of(items.iter().copied());
        let other = Chunk::of(items.iter().map(|item| if *item == items[3] { "[0]" } else { item }));
        assert_eq!(first.with_chunks(vec![(1, same)]).shared_with(&first), 4);
        let changed = first.with_chunks(vec![(1, other)]);
        assert_eq!((changed.shared_with(&first), changed.len()), (3, 200));
        assert_eq!(changed.items().nth(67), Some("[0]"));
    }
}
