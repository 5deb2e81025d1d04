//! The house's own rules, checked: who may depend on whom, what every crate must carry, what files may hold.

mod borders;
mod errors;
mod faults;
mod licences;
mod tidiness;
