//! Values by small counts: made when first asked for, shared by threads.

use std::sync::OnceLock;

const PAGE: usize = 64;
const PAGES: usize = 1024;

type Page<T> = Box<[OnceLock<T>]>;

/// A pure function of a count, remembered for counts below 65,536.
#[derive(Debug)]
pub(super) struct ByCount<T> {
    pages: Box<[OnceLock<Page<T>>]>,
}

impl<T: Copy> ByCount<T> {
    pub(super) fn new() -> Self {
        Self {
            pages: (0..PAGES).map(|_| OnceLock::new()).collect(),
        }
    }

    #[inline]
    pub(super) fn get(&self, count: u32, make: impl Fn(u32) -> T) -> T {
        let index = count as usize;
        match self.pages.get(index / PAGE) {
            Some(page) => {
                let page = page.get_or_init(|| (0..PAGE).map(|_| OnceLock::new()).collect());
                *page[index % PAGE].get_or_init(|| make(count))
            }
            None => make(count),
        }
    }
}
