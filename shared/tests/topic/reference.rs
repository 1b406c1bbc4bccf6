//! Topic matching as section 4.7 words it, with no thought for speed.

/// Whether `filter`, without its share, matches `topic`.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    levels_match(&filter, &topic)
}

fn levels_match(filter: &[&str], topic: &[&str]) -> bool {
    match (filter.split_first(), topic.split_first()) {
        (Some((&"#", _)), _) => true,
        (Some((&"+", filter)), Some((_, topic))) => levels_match(filter, topic),
        (Some((wanted, filter)), Some((level, topic))) => {
            wanted == level && levels_match(filter, topic)
        }
        (None, None) => true,
        _ => false,
    }
}

/// Whether `text` is a topic filter by sections 4.7 and 4.8.2.
pub(crate) fn is_filter(text: &str) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    if let ["$share", group, filter @ ..] = levels.as_slice() {
        let filter = filter.join("/");
        return !group.is_empty()
            && !group.contains(['+', '#', '\0'])
            && text.len() <= 65_535
            && is_plain_filter(&filter);
    }
    is_plain_filter(text)
}

fn is_plain_filter(text: &str) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    let (last, front) = levels.split_last().expect("split gives one level at least");
    let is_level = |level: &&str| *level == "+" || !level.contains(['+', '#']);
    !text.is_empty()
        && text.len() <= 65_535
        && !text.contains('\0')
        && front.iter().all(is_level)
        && (is_level(last) || *last == "#")
}
