//! Containers and other things that come and go: what container engines know of them, which are targets of capture, and
//! the network namespaces they have of their own. What becomes of a target is decided elsewhere.

mod engine;
mod listeners;
mod names;
mod namespaces;
mod shown;
mod targets;

pub use engine::{Engine, EngineError, Known, Which};
pub use listeners::CaptureListeners;
pub use names::Names;
pub use namespaces::{Door, EnterError, Namespaces};
pub use shown::{Inside, Port, Shown};
pub use targets::{Asked, Captured, CapturedProgram, Origin, Starting, Targets};
