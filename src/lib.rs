//! streamhand
