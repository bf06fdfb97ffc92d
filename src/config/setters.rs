//! Settings that a program makes: each field has a method of its name that returns the same settings with it set.

/// Makes those methods. `plain` fields take their type, `into` what can be turned into it, and `some` the value of an
/// `Option`.
macro_rules! setters {
    ($of:ty { $($how:ident $field:ident: $type:ty),* $(,)? }) => {
        impl $of {
            $(setters!(@one $how $field: $type);)*
        }
    };
    (@one plain $field:ident: $type:ty) => {
        #[doc = concat!("The same settings with `", stringify!($field), "`.")]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    };
    (@one into $field:ident: $type:ty) => {
        #[doc = concat!("The same settings with `", stringify!($field), "`.")]
        pub fn $field(mut self, $field: impl Into<$type>) -> Self {
            self.$field = $field.into();
            self
        }
    };
    (@one some $field:ident: $type:ty) => {
        #[doc = concat!("The same settings with `", stringify!($field), "`.")]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = Some($field);
            self
        }
    };
    (@one some_into $field:ident: $type:ty) => {
        #[doc = concat!("The same settings with `", stringify!($field), "`.")]
        pub fn $field(mut self, $field: impl Into<$type>) -> Self {
            self.$field = Some($field.into());
            self
        }
    };
}

pub(crate) use setters;
