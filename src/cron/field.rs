//! One field of a pattern: `*`, `5`, `1-5`, `*/15`, `8-18/2`, `MON,WED`.

/// What a field is of.
pub(super) struct Kind {
    pub name: &'static str,
    pub first: u32,
    pub last: u32,
    /// Names for its values, the first of them that of `first_name`.
    pub names: &'static [&'static str],
    pub first_name: u32,
}

/// The values of a field, a bit each, and how it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    bits: u64,
    /// It contains a `*`.
    pub has_star: bool,
    /// It contains a step.
    pub has_step: bool,
}

impl Field {
    /// Reads a field.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self, String> {
        let mut field = Field {
            bits: 0,
            has_star: text.contains('*'),
            has_step: text.contains('/'),
        };
        for part in text.split(',') {
            field.bits |= kind.part(part)?;
        }
        Ok(field)
    }

    pub fn has(self, value: u32) -> bool {
        self.bits >> value & 1 == 1
    }

    /// The first value that is not below this one.
    pub fn from(self, value: u32) -> Option<u32> {
        let rest = self.bits.checked_shr(value)?;
        (rest != 0).then(|| value + rest.trailing_zeros())
    }

    /// Day 7 of the week is day 0.
    pub fn with_sunday_as_0(mut self) -> Self {
        self.bits = (self.bits | self.bits >> 7 & 1) & 0x7f;
        self
    }
}

impl Kind {
    fn part(&self, part: &str) -> Result<u64, String> {
        let (range, step) = match part.split_once('/') {
            None => (part, 1),
            Some((range, step)) => match step.parse() {
                Ok(step) if step > 0 && step <= self.last => (range, step),
                _ => {
                    return Err(format!(
                        "`{part}`: a step is a number from 1 to {}",
                        self.last
                    ));
                }
            },
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.first, self.last),
            Some((first, last)) => (self.value(first, part)?, self.value(last, part)?),
            None => {
                let first = self.value(range, part)?;
                // As crontab has it: `5/15` begins at 5 and goes on to the end.
                (first, if part.contains('/') { self.last } else { first })
            }
        };
        if first > last {
            return Err(format!(
                "`{part}`: the range goes backwards; write it as two, `{first}-{},{}-{last}`",
                self.last, self.first
            ));
        }
        let values = (first..=last).step_by(step as usize);
        Ok(values.fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str, part: &str) -> Result<u32, String> {
        let name = |name: &&str| name.eq_ignore_ascii_case(text);
        if let Some(at) = self.names.iter().position(name) {
            return Ok(self.first_name + at as u32);
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(value) if digits && (self.first..=self.last).contains(&value) => Ok(value),
            _ => Err(format!(
                "`{part}`: the {} is {} to {}{}",
                self.name,
                self.first,
                self.last,
                match self.names {
                    [first, .., last] => format!(", or {first} to {last}"),
                    _ => String::new(),
                }
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Kind = Kind {
        name: "minute",
        first: 0,
        last: 59,
        names: &[],
        first_name: 0,
    };

    fn values(text: &str) -> Vec<u32> {
        let field = Field::parse(&MINUTE, text).unwrap();
        (0..60).filter(|value| field.has(*value)).collect()
    }

    #[test]
    fn a_field_is_read_as_crontab_reads_it() {
        assert_eq!(values("*").len(), 60);
        assert_eq!(values("5"), [5]);
        assert_eq!(values("*/20"), [0, 20, 40]);
        assert_eq!(values("5/20"), [5, 25, 45]);
        assert_eq!(values("10-20/5,59"), [10, 15, 20, 59]);
        let field = Field::parse(&MINUTE, "10,59").unwrap();
        assert_eq!(
            (field.from(0), field.from(11), field.from(60)),
            (Some(10), Some(59), None)
        );
    }

    #[test]
    fn what_is_no_field_is_refused() {
        for text in [
            "", "60", "-1", "+5", "5-", "*/0", "*/60", "20-10", "a", "1,,2", "1 ", "**",
        ] {
            assert!(Field::parse(&MINUTE, text).is_err(), "{text}");
        }
    }
}
