//! Content of the messages of 12.x and 13.x: the same five kinds as the suite's files, which compress well,
//! somewhat and not at all.

use super::frames::{BINARY, TEXT};

/// A kind of content.
#[derive(Clone, Copy)]
pub struct Material {
    pub opcode: u8,
    write: fn(&mut Vec<u8>, &mut Dice),
}

pub const JSON: Material = Material { opcode: TEXT, write: json };
pub const PICTURE: Material = Material { opcode: BINARY, write: picture };
pub const PROSE: Material = Material { opcode: BINARY, write: prose };
pub const HTML: Material = Material { opcode: TEXT, write: html };
pub const NOISE: Material = Material { opcode: BINARY, write: noise };

/// Generator of the same numbers every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        // Knuth's MMIX; the upper bits are the better ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }
}

impl Material {
    /// Returns messages of this length, cut one after another from the same stock.
    pub fn messages(&self, length: usize, count: usize) -> Vec<Vec<u8>> {
        let mut dice = Dice(1);
        let mut stock = Vec::new();
        while stock.len() < length * count {
            (self.write)(&mut stock, &mut dice);
        }
        stock.chunks(length).take(count).map(<[u8]>::to_vec).collect()
    }
}

fn json(stock: &mut Vec<u8>, dice: &mut Dice) {
    let (case, duration) = (dice.below(500), dice.below(3000));
    let line =
        format!("{{\"case\": \"{case}\", \"behavior\": \"OK\", \"duration\": {duration}}},\n");
    stock.extend(line.bytes());
}

fn picture(stock: &mut Vec<u8>, dice: &mut Dice) {
    let shade = dice.byte() / 4;
    stock.extend((0..64).map(|column| 128 + column / 2 + shade / 8));
}

fn prose(stock: &mut Vec<u8>, dice: &mut Dice) {
    const WORDS: [&str; 8] =
        ["Habe", "nun", "ach", "Philosophie", "Juristerei", "und", "auch", "Medizin"];
    let word = usize::try_from(dice.below(8)).expect("below 8");
    stock.extend(WORDS[word].bytes().chain([b' ']));
}

fn html(stock: &mut Vec<u8>, dice: &mut Dice) {
    let row = dice.below(100_000);
    stock.extend(format!("<tr class=\"row\"><td>{row}</td><td>Pass</td></tr>\n").bytes());
}

fn noise(stock: &mut Vec<u8>, dice: &mut Dice) {
    stock.push(dice.byte());
}
