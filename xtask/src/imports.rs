//! The paths that the `use` lines of a source file bring in, spelt out: groups are taken apart.

/// Each imported path with the line where its statement begins. Names given with `as` are left out; `self`
/// stands for what it is.
pub(crate) fn of(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = source.lines().enumerate();
    while let Some((place, line)) = lines.next() {
        let Some(mut statement) = begun(line) else { continue };
        while !statement.contains(';') {
            let Some((_, more)) = lines.next() else { break };
            statement.push(' ');
            statement.push_str(without_comment(more));
        }
        let tree = statement.split(';').next().unwrap_or_default();
        let mut paths = Vec::new();
        spell(String::new(), tree, &mut paths);
        found.extend(paths.into_iter().map(|path| (place + 1, path)));
    }
    found
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// What follows `use`, if the line begins an import.
fn begun(line: &str) -> Option<String> {
    let mut code = without_comment(line).trim_start();
    if let Some(public) = code.strip_prefix("pub") {
        code = match public.strip_prefix('(') {
            Some(scope) => scope.split_once(')')?.1,
            None => public,
        };
    }
    code.trim_start().strip_prefix("use ").map(str::to_owned)
}

fn spell(prefix: String, tree: &str, out: &mut Vec<String>) {
    let tree = tree.trim();
    if let Some((head, group)) = tree.split_once('{') {
        let group = group.rsplit_once('}').map_or(group, |(inner, _)| inner);
        for part in parts(group) {
            spell(prefix.clone() + head.trim(), part, out);
        }
    } else if !tree.is_empty() {
        let name = tree.split_whitespace().next().unwrap_or_default();
        let path = match name {
            "self" => prefix.trim_end_matches("::").to_owned(),
            name => prefix + name,
        };
        out.push(path.trim_start_matches("::").to_owned());
    }
}

/// The members of a group: commas inside inner groups do not part them.
fn parts(group: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                found.push(&group[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(&group[from..]);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_taken_apart() {
        let source =
            "use a::b;\npub(crate) use c::{d, e::{self, f as g}, // why\n    h::*,\n};\nlet x;";
        let paths: Vec<_> = of(source);
        let of_line = |line| {
            let here = paths.iter().filter(move |(at, _)| *at == line);
            here.map(|(_, path)| path.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(of_line(1), ["a::b"]);
        assert_eq!(of_line(2), ["c::d", "c::e", "c::e::f", "c::h::*"]);
        assert_eq!(paths.len(), 5);
    }
}
