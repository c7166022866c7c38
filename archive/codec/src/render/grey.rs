//! Grey: stored value ─► padding ─► modality ─► VOI ─► inversion ─► level (PS3.4 §N.2.1).

use super::samples::{Kind, Stored};
use archive_codec_wire::recipe::{Function, Modality, Recipe, Table, Voi};

/// White, and how many steps there are to it.
const WHITE: f64 = 255.0;

/// A level for every sample.
pub(super) fn levels(stored: &Stored<'_>, recipe: &Recipe) -> Vec<u8> {
    let shown = |bits: u64| value(stored.value(bits), recipe);
    if !stored.is_narrow() {
        let values = || (0..stored.len()).map(|at| shown(stored.bits(at)));
        let extent = extent(stored, recipe, values().flatten());
        return values().map(|value| level(value, recipe, extent)).collect();
    }
    // Of 65,536 words those that occur are mapped, once each.
    let mut occurs = vec![false; 1 << 16];
    stored.each_word(|word| occurs[usize::from(word)] = true);
    let occurring = || (0_u16..=u16::MAX).filter(|word| occurs[usize::from(*word)]);
    let extent = extent(stored, recipe, occurring().filter_map(|word| shown(u64::from(word))));
    let mut table = vec![0; 1 << 16];
    occurring().for_each(|word| table[usize::from(word)] = level(shown(u64::from(word)), recipe, extent));
    let mut levels = Vec::with_capacity(stored.len());
    stored.each_word(|word| levels.push(table[usize::from(word)]));
    levels
}

/// The value of the modality; `None` for padding, and for what is no number.
fn value(stored: f64, recipe: &Recipe) -> Option<f64> {
    if recipe.padding.is_some_and(|(lowest, highest)| (lowest..=highest).contains(&stored)) {
        return None;
    }
    let value = match &recipe.modality {
        Modality::Linear { slope, intercept } => stored * slope + intercept,
        Modality::Table(table) => f64::from(entry(table, stored)),
    };
    value.is_finite().then_some(value)
}

/// What is black and what is white where nothing says it: the lowest and the highest value. A single bit has both.
fn extent(stored: &Stored<'_>, recipe: &Recipe, values: impl Iterator<Item = f64>) -> (f64, f64) {
    match (&recipe.voi, stored.kind) {
        (Voi::Extent, Kind::Integer { bits: 1, .. }) => {
            let ends = [0.0, 1.0].map(|bit| value(bit, recipe).unwrap_or(0.0));
            (ends[0].min(ends[1]), ends[0].max(ends[1]))
        }
        (Voi::Extent, Kind::Integer { .. } | Kind::Float) => {
            let start = (f64::INFINITY, f64::NEG_INFINITY);
            values.fold(start, |(low, high), value| (low.min(value), high.max(value)))
        }
        (Voi::Window { .. } | Voi::Table(_), _) => (0.0, 0.0),
    }
}

fn level(value: Option<f64>, recipe: &Recipe, extent: (f64, f64)) -> u8 {
    let Some(value) = value else { return 0 };
    let light = match &recipe.voi {
        Voi::Extent => within(extent.0, extent.1, value),
        Voi::Window { function, centre, width } => window(*function, *centre, *width, value),
        Voi::Table(table) => f64::from(entry(table, value)) / f64::from((1_u32 << table.bits) - 1) * WHITE,
    };
    let light = light.clamp(0.0, WHITE);
    (if recipe.inverted { WHITE - light } else { light }).round() as u8
}

/// 0 at `low`, white at `high`; where all is one value, that is black.
fn within(low: f64, high: f64, value: f64) -> f64 {
    let span = high - low;
    if span > 0.0 && span.is_finite() { (value - low) / span * WHITE } else { 0.0 }
}

/// PS3.3 §C.11.2.1.2 and §C.11.2.1.3, y from 0 to white.
fn window(function: Function, centre: f64, width: f64, x: f64) -> f64 {
    match function {
        Function::Linear if x <= centre - 0.5 - (width - 1.0) / 2.0 => 0.0,
        Function::Linear if x > centre - 0.5 + (width - 1.0) / 2.0 => WHITE,
        Function::Linear => ((x - (centre - 0.5)) / (width - 1.0) + 0.5) * WHITE,
        Function::LinearExact if x <= centre - width / 2.0 => 0.0,
        Function::LinearExact if x > centre + width / 2.0 => WHITE,
        Function::LinearExact => ((x - centre) / width + 0.5) * WHITE,
        Function::Sigmoid => WHITE / (1.0 + (-4.0 * (x - centre) / width).exp()),
    }
}

/// The entry of a value: below the first one the first, beyond the last one the last.
pub(super) fn entry(table: &Table, value: f64) -> u16 {
    let at = (value.round() - f64::from(table.first)).clamp(0.0, (table.entries.len() - 1) as f64);
    table.entries[at as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn a_window_is_that_of_the_standard() {
        // The example of §C.11.2.1.2.1: centre 2048, width 4096 is the identity of 12 bits; y = (x - 2047.5) / 4095 + 0.5.
        assert!(near(window(Function::Linear, 2048.0, 4096.0, 0.0), 0.0));
        assert!(near(window(Function::Linear, 2048.0, 4096.0, 4095.0), 255.0));
        assert!(near(window(Function::Linear, 2048.0, 4096.0, 1365.0), 85.0));
        // Centre 2048, width 1: a threshold, 2047.5 and less are black.
        assert!(near(window(Function::Linear, 2048.0, 1.0, 2047.0), 0.0));
        assert!(near(window(Function::Linear, 2048.0, 1.0, 2047.5), 0.0));
        assert!(near(window(Function::Linear, 2048.0, 1.0, 2048.0), 255.0));
        // Centre 0, width 100: y = (x + 0.5) / 99 + 0.5, from -50 to 49.
        assert!(near(window(Function::Linear, 0.0, 100.0, -50.0), 0.0));
        assert!(near(window(Function::Linear, 0.0, 100.0, 49.0), 255.0));
        assert!(near(window(Function::Linear, 0.0, 100.0, -17.0), 85.0));
    }

    #[test]
    fn an_exact_window_and_a_sigmoid_are_those_of_the_standard() {
        assert!(near(window(Function::LinearExact, 10.0, 0.5, 10.0), 127.5));
        assert!(near(window(Function::LinearExact, 10.0, 0.5, 9.75), 0.0));
        assert!(near(window(Function::LinearExact, 10.0, 0.5, 10.25), 255.0));
        assert!(near(window(Function::LinearExact, 0.0, 100.0, 10.0), 153.0));
        assert!(near(window(Function::Sigmoid, 50.0, 20.0, 50.0), 127.5));
        // 255 / (1 + e^-2) at centre + half the width.
        assert!((window(Function::Sigmoid, 50.0, 20.0, 60.0) - 224.603_255).abs() < 1e-6);
    }

    #[test]
    fn a_value_outside_of_a_table_has_its_first_or_last_entry() {
        let table = Table { first: -2, bits: 8, entries: vec![10, 20, 30] };
        let found = [-1000.0, -2.0, -1.0, 0.0, 1.0, 1e9].map(|value| entry(&table, value));
        assert_eq!(found, [10, 10, 20, 30, 30, 30]);
    }
}
