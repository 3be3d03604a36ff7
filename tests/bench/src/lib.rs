//! Measures the core. Each figure stands beside what the machine itself gives, taken in the same run and in turns with ours, since a virtual
//! machine's disk is another one every minute: what counts is the ratio.

pub mod delay;
pub mod device;
pub mod figure;
pub mod instructions;
pub mod kernel_figures;
pub mod load;
pub mod machine;
pub mod memory_disk;
pub mod page;
pub mod report;
pub mod run;
pub mod scratch;
pub mod timing;
