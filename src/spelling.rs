//! Nearest valid spelling of a word a person mistyped. Bottom of the module
//! order: uses nothing.

/// The candidate most like `word`, if any is like enough to be what was meant.
/// Letter case is ignored; ties go to the candidate that comes first.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let candidate_lower = candidate.to_lowercase();
        let mut score = likeness(&word, &candidate_lower);
        if score > 0.0 {
            // Long names that start alike all come out near 1: edits tell them apart.
            let edits = strsim::levenshtein(&word, &candidate_lower) as f64;
            score += 1.0 / (1.0 + edits);
        }
        if score > best.map_or(0.0, |(s, _)| s) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Likeness in `[0, 1]`; 0 where the two are too far apart to suggest.
fn likeness(word: &str, candidate: &str) -> f64 {
    let score = strsim::jaro_winkler(word, candidate);
    // Jaro-Winkler falls low for long names of which a part was left out.
    let part = word.len() >= 4 && (candidate.contains(word) || word.contains(candidate));
    match (score >= 0.8, part) {
        (true, _) => score,
        (false, true) => 0.8,
        (false, false) => 0.0,
    }
}

/// `; did you mean `x`?`, or nothing: the tail of an error message.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates)
        .map(|candidate| format!("; did you mean `{candidate}`?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typo_finds_the_word_meant() {
        let keys = ["tensor_parallel", "expert_parallel", "pipeline_parallel"];
        assert_eq!(nearest("tensor_paralel", keys), Some("tensor_parallel"));
        assert_eq!(
            nearest("Tensor_Parallel_Size", keys),
            Some("tensor_parallel")
        );
        assert_eq!(nearest("qps", keys), None);
        assert_eq!(did_you_mean("qps", keys), "");
        assert_eq!(
            did_you_mean("expert_paralell", keys),
            "; did you mean `expert_parallel`?"
        );
    }
}
