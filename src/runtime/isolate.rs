//! The state that an isolate keeps between requests: configuration, caches, the namespace of the
//! objects, and a source of nonces.

use crate::config::Config;
use crate::gateway::deny_cache::DenyCache;
use crate::gateway::import_cache::KeyLookups;
use crate::gateway::import_queue::{AnswerSlot, LookupQueue};
use crate::gateway::known_terms::KnownTerms;
use crate::gateway::loop_guard::{Loops, Seal};
use crate::gateway::refused_addresses::Refusals;
use crate::gateway::self_service::SelfService;
use crate::gateway::verified_keys::VerifiedKeys;
use crate::runtime::error::Error;
use crate::runtime::http::{self, Rendered};
use crate::runtime::js::instance::install_abort_hook;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::RefUnwindSafe;
use std::rc::Rc;
use wasm_bindgen::JsValue;
use worker::Env;

/// The binding of the objects, one per key.
pub(crate) const OBJECTS: &str = "KEYS";

thread_local! {
    static ISOLATE: RefCell<Option<Rc<Isolate>>> = const { RefCell::new(None) };
}

/// Maximum number of keys with a rendered denial.
pub(crate) const RENDERED: usize = 256;

pub(crate) struct Isolate {
    pub(crate) config: Config,
    pub(crate) objects: JsValue,
    pub(crate) env: Env,
    pub(crate) denials: RefCell<DenyCache>,
    pub(crate) rendered: RefCell<HashMap<String, Rendered>>,
    pub(crate) lookups: RefCell<KeyLookups>,
    pub(crate) queue: RefCell<LookupQueue<Rc<AnswerSlot>>>,
    pub(crate) refusals: RefCell<Refusals>,
    pub(crate) verified: RefCell<VerifiedKeys>,
    pub(crate) token_terms: RefCell<KnownTerms>,
    pub(crate) seal: Seal,
    pub(crate) loops: RefCell<Loops>,
    pub(crate) self_service: RefCell<SelfService>,
    next_nonce: Cell<u64>,
}

// A panic leaves no inconsistent state here: each borrow makes one change to one map.
impl RefUnwindSafe for Isolate {}

impl Isolate {
    /// Initialised by the first request. Variables and bindings do not change within an isolate.
    pub(crate) fn get(env: &Env) -> Result<Rc<Self>, Error> {
        if let Some(isolate) = ISOLATE.with_borrow(Option::clone) {
            return Ok(isolate);
        }
        install_abort_hook();
        let config = Config::from_lookup(|name| variable(env, name)).map_err(Error::new)?;
        let objects = js_sys::Reflect::get(env, &OBJECTS.into())?;
        if objects.is_undefined() {
            return Err(Error::new(format!("there is no Durable Object binding {OBJECTS}")));
        }
        let key_secret = variable(env, "KEY_SECRET").map(|secret| secret.trim().to_owned());
        let seal = Seal::new(key_secret.as_deref()).ok_or_else(|| Error::new("KEY_SECRET cannot be used"))?;
        let next_nonce = Cell::new(getrandom::u64().map_err(Error::new)?);
        http::set_forwarding_rules(&config.cors_allow_origin);
        let isolate = Rc::new(Self {
            config,
            objects,
            env: env.clone(),
            denials: RefCell::default(),
            rendered: RefCell::default(),
            lookups: RefCell::default(),
            queue: RefCell::default(),
            refusals: RefCell::default(),
            verified: RefCell::default(),
            token_terms: RefCell::default(),
            seal,
            loops: RefCell::default(),
            self_service: RefCell::default(),
            next_nonce,
        });
        ISOLATE.set(Some(Rc::clone(&isolate)));
        Ok(isolate)
    }

    /// `CORS_ALLOW_ORIGIN`, or its default if the configuration is invalid.
    pub(crate) fn cors() -> Rc<str> {
        ISOLATE.with_borrow(|isolate| match isolate {
            Some(isolate) => Rc::clone(&isolate.config.cors_allow_origin),
            None => Rc::from("*"),
        })
    }

    /// Drops cached denials and self-service responses of one key, or of all. Call it once a change
    /// is in force: responses to earlier requests are then not kept either.
    pub(crate) fn forget_denials(&self, id: Option<&str>) {
        self.self_service.borrow_mut().forget(id);
        self.denials.borrow_mut().forget(id);
        let mut rendered = self.rendered.borrow_mut();
        match id {
            Some(id) => drop(rendered.remove(id)),
            None => rendered.clear(),
        }
    }

    /// Records an import through this isolate: cached answers about unknown texts may be wrong now.
    pub(crate) fn note_import(&self) {
        self.lookups.borrow_mut().imported();
        self.queue.borrow_mut().imported();
    }

    /// A unique number, up to a chance of about one in 2^64: a random start per isolate, then
    /// consecutive.
    pub(crate) fn nonce(&self) -> u64 {
        let nonce = self.next_nonce.get();
        self.next_nonce.set(nonce.wrapping_add(1));
        nonce
    }
}

/// A variable or secret. `None` if it is not set or not a text.
pub(crate) fn variable(env: &Env, name: &str) -> Option<String> {
    js_sys::Reflect::get(env, &name.into()).ok()?.as_string()
}
