//! The parts of one object, from the lowest to the highest.

use crate::runtime::object::alarm::Alarm;
use crate::runtime::object::context::ObjectContext;
use crate::runtime::object::profile_reader::ProfileReader;
use crate::runtime::object::writer::Writer;
use std::rc::Rc;
use worker::{Env, State};

/// See the module.
pub(super) struct ObjectParts {
    pub(super) context: Rc<ObjectContext>,
    pub(super) alarm: Alarm,
    pub(super) writer: Rc<Writer>,
    pub(super) reader: ProfileReader,
}

impl ObjectParts {
    pub(super) fn new(state: State, env: Env) -> Self {
        let context = Rc::new(ObjectContext::new(state, env));
        let alarm = Alarm::new(Rc::clone(&context));
        let writer = Rc::new(Writer::new(Rc::clone(&context), alarm.clone()));
        let reader = ProfileReader::new(Rc::clone(&context), alarm.clone());
        Self { context, alarm, writer, reader }
    }
}
