//! What the last steps of a cluster have made, and through which activation it is sent.
//!
//! The idea: who reads first decides how it is sent; who reads it otherwise takes it from the map, where all of it is, too.

use std::collections::VecDeque;

use super::abi::{RECENT, SETS};
use super::walk::Made;
use crate::graph::Activation;

/// What one of the last steps has made.
pub struct Maker {
    /// Nothing if it had nothing to do.
    pub made: Option<Made>,
    /// Whether it fills the position, as multipliers need it.
    pub fills: bool,
    /// Its units.
    pub units: usize,
    /// The activation through which it is sent, if anything has read it yet.
    pub sent_by: Option<i32>,
    /// Its record; drawing has none.
    pub record: Option<usize>,
}

impl Maker {
    /// Whether it has made the whole of that.
    fn filled(&self, position: Made) -> bool {
        self.fills && self.made == Some(position)
    }
}

/// What the last steps have made, the latest first.
#[derive(Default)]
pub struct Recent {
    makers: VecDeque<Maker>,
    /// Of those that are no longer recent: the record, and the activation.
    pub sent: Vec<(usize, i32)>,
}

impl Recent {
    /// Steps since it was made, or 0 if it is to be had in the map only: what is read through two activations is sent through
    /// the first.
    pub fn read(&mut self, made: Made, activation: i32) -> usize {
        let Some(steps) = self.makers.iter().position(|maker| maker.filled(made)) else { return 0 };
        let sent_by = *self.makers[steps].sent_by.get_or_insert(activation);
        if sent_by == activation { steps + 1 } else { 0 }
    }

    /// Whether drawing reads its logits where the last step has sent them, as they are. It reads none of the padding, so that they
    /// need not fill the position.
    pub fn draw(&mut self, logits: Made) -> bool {
        let Some(last) = self.makers.front_mut().filter(|maker| maker.made == Some(logits)) else {
            return false;
        };
        // Nothing else has read them: they have just been made.
        last.sent_by = Some(Activation::Identity as i32);
        true
    }

    /// Steps since what is added was made by the thread that adds it, or 0: it had as many units, and its set of adders is that of
    /// every other step.
    pub fn add(&self, made: Made, units: usize) -> usize {
        let [last, before] = [0, 1].map(|i| self.makers.get(i));
        let stage_between = last.is_some_and(|maker| maker.record.is_some());
        let same =
            before.is_some_and(|maker| maker.filled(made) && maker.record.is_some() && maker.units == units);
        if stage_between && same { SETS } else { 0 }
    }

    pub fn push(&mut self, maker: Maker) {
        self.makers.push_front(maker);
        while self.makers.len() >= RECENT {
            let old = self.makers.pop_back().expect("there are some");
            self.sent.extend(old.record.zip(old.sent_by));
        }
    }
}
