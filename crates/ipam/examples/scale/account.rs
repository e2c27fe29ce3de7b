//! One AWS account: a token bucket for each action, shared by all nodes, and a count of what was let through and what not.

use vpcnet_cloud::Ec2Action;

/// A bucket: calls it holds when full, calls it regains each second.
#[derive(Clone, Copy)]
struct Bucket {
    size: f64,
    per_second: f64,
}

/// The figures of the lab's default: each action has a bucket of its own (EC2 Developer Guide, "Request throttling").
const WRITES: Bucket = Bucket {
    size: 50.0,
    per_second: 5.0,
};
const READS: Bucket = Bucket {
    size: 100.0,
    per_second: 20.0,
};

/// Instances an account may launch at once, and then each second (the same page, resource tokens of `RunInstances`).
pub(crate) const LAUNCHES: (u32, f64) = (1000, 2.0);

fn bucket(action: Ec2Action) -> Bucket {
    if action.is_read() { READS } else { WRITES }
}

#[derive(Clone, Copy)]
struct Level {
    tokens: f64,
    at_ms: u64,
}

/// What became of the calls of one action.
#[derive(Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) made: u64,
    pub(crate) refused: u64,
}

/// The account.
pub(crate) struct Account {
    levels: Vec<Level>,
    counts: Vec<Count>,
}

impl Account {
    pub(crate) fn new() -> Self {
        let full = |action: &Ec2Action| Level {
            tokens: bucket(*action).size,
            at_ms: 0,
        };
        Self {
            levels: Ec2Action::ALL.iter().map(full).collect(),
            counts: vec![Count::default(); Ec2Action::ALL.len()],
        }
    }

    /// A call arrives; false: refused. Times do not go back.
    pub(crate) fn call(&mut self, action: Ec2Action, at_ms: u64) -> bool {
        let Bucket { size, per_second } = bucket(action);
        let level = &mut self.levels[action as usize];
        let passed = at_ms.saturating_sub(level.at_ms) as f64 / 1e3;
        level.tokens = passed.mul_add(per_second, level.tokens).min(size);
        level.at_ms = at_ms;
        let passes = level.tokens >= 1.0;
        let count = &mut self.counts[action as usize];
        count.made += 1;
        if passes {
            level.tokens -= 1.0;
        } else {
            count.refused += 1;
        }
        passes
    }

    /// Of actions that were called at all.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Ec2Action, Count)> + '_ {
        let all = Ec2Action::ALL.iter().copied().zip(self.counts.iter().copied());
        all.filter(|(_, count)| count.made > 0)
    }
}

/// The bucket of one action, asked by one mind: when calls pass at the earliest, first come first served.
pub(crate) struct Turnstile {
    bucket: Bucket,
    tokens: f64,
    at_ms: u64,
}

impl Turnstile {
    pub(crate) fn of(action: Ec2Action) -> Self {
        let bucket = bucket(action);
        Self {
            bucket,
            tokens: bucket.size,
            at_ms: 0,
        }
    }

    /// When a call that is wanted at this time would pass.
    pub(crate) fn would_pass(&self, wanted_ms: u64) -> u64 {
        let now = wanted_ms.max(self.at_ms);
        let missing = 1.0 - self.tokens_at(now);
        if missing <= 0.0 {
            now
        } else {
            now + (missing / self.bucket.per_second * 1e3).ceil() as u64
        }
    }

    /// It passes.
    pub(crate) fn pass(&mut self, wanted_ms: u64) -> u64 {
        let now = self.would_pass(wanted_ms);
        self.tokens = self.tokens_at(now) - 1.0;
        self.at_ms = now;
        now
    }

    fn tokens_at(&self, now: u64) -> f64 {
        let passed = (now - self.at_ms) as f64 / 1e3;
        passed
            .mul_add(self.bucket.per_second, self.tokens)
            .min(self.bucket.size)
    }
}
