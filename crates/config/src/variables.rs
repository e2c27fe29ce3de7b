//! The table of all variables, one chapter a file.

/// Defines a chapter: a constant for each variable, and the list of them.
macro_rules! chapter {
    (@name $ident:ident) => { stringify!($ident) };
    (@name $ident:ident $name:literal) => { $name };
    (@or) => { "" };
    (@or $text:expr) => { $text };
    ($group:ident; $( $ident:ident $(($name:literal))? : $kind:expr, default $default:expr, invalid $invalid:expr,
        $text:expr $(, original $original:expr)?; )*) => {
        $(
            #[doc = concat!("`", chapter!(@name $ident $($name)?), "`: ", $text)]
            pub const $ident: $crate::Variable = $crate::Variable {
                name: chapter!(@name $ident $($name)?),
                group: $crate::Group::$group,
                kind: $kind,
                default: $default,
                text: $text,
                invalid: $invalid,
                original: chapter!(@or $($original)?),
            };
        )*
        pub(crate) const ALL: &[$crate::Variable] = &[$($ident),*];
    };
}

mod cloud;
mod host;
mod install;
mod interfaces;
mod kubernetes;
mod pool;
mod process;

use crate::variable::Variable;

/// Every variable by its name.
pub mod vars {
    pub use super::cloud::access::*;
    pub use super::cloud::credentials::*;
    pub use super::host::*;
    pub use super::install::plugins::*;
    pub use super::install::retired::*;
    pub use super::interfaces::*;
    pub use super::kubernetes::*;
    pub use super::pool::*;
    pub use super::process::*;
}

/// Every variable, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Variable> {
    [
        pool::ALL,
        interfaces::ALL,
        host::ALL,
        process::ALL,
        kubernetes::ALL,
        cloud::access::ALL,
        install::plugins::ALL,
        cloud::credentials::ALL,
        install::retired::ALL,
    ]
    .into_iter()
    .flatten()
}
