//! The fleet as a whole, and its parts against what they meet in the field.

mod session;
