//! All templates that a pod may ask for: those of the main pack by their names, those of further packs as
//! `PACK/TEMPLATE`, each with the values of its own pack.
//!
//! The values of a further pack stand under its name, and `global` is everybody's, as for the charts that a Helm chart
//! depends on (<https://helm.sh/docs/chart_template_guide/subcharts_and_globals/>).

use std::collections::BTreeMap;

use handlebars::Context;
use serde_json::{Map, Value};

use super::packs::{Pack, overlay_values};
use super::{RenderError, Templates, schema};
use crate::settings::{Unusable, misspelt};

/// The key that all packs share.
const GLOBAL: &str = "global";

/// Packs, compiled.
#[derive(Debug)]
pub(crate) struct Library {
    main: Templates,
    further: Vec<Further>,
    names: Vec<String>,
    warnings: Vec<String>,
}

/// A pack beside the main one.
#[derive(Debug)]
struct Further {
    name: String,
    templates: Templates,
    values: Map<String, Value>,
}

/// What a library is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// The main pack.
    pub(crate) pack: &'a str,
    /// Further packs.
    pub(crate) further: &'a [String],
    /// The operator's own templates, which win over the main pack's.
    pub(crate) templates: &'a BTreeMap<String, String>,
    /// The operator's values.
    pub(crate) values: &'a Map<String, Value>,
    /// Whether values must hold to the packs' schemas.
    pub(crate) strict: bool,
}

impl Library {
    /// Loads and compiles; also gives the values that the main pack's templates see.
    ///
    /// # Errors
    /// A pack that cannot be loaded, two of one name, a template that does not compile, values that a pack's schema
    /// refuses: each under the field of the settings that has it.
    pub(crate) fn load(sources: &Sources) -> Result<(Self, Map<String, Value>), Unusable> {
        let load = |field, pack| Pack::load(pack).map_err(|e| Unusable::new(field, e.to_string()));
        let main = load("pack", sources.pack)?;
        let further = sources.further.iter().map(|pack| load("packs", pack));
        let further = further.collect::<Result<Vec<_>, _>>()?;
        let of_main = of_main(sources.values, &further);
        let warnings = misspelt::in_values(&of_main, &main.values);
        let values = merged(&main, "values", of_main, sources)?;
        let main = Templates::compile(&main, sources.templates).map_err(|e| {
            let field = if sources.templates.contains_key(&e.name) { "templates" } else { "pack" };
            Unusable::new(field, e.to_string())
        })?;
        let mut library = Self { names: main.names().to_vec(), main, further: Vec::new(), warnings };
        for pack in further {
            if library.further.iter().any(|known| known.name == pack.name) {
                let problem = format!("there are two of the name {:?}; rename one of them", pack.name);
                return Err(Unusable::new("packs", problem));
            }
            let further = compile_further(pack, &values, sources)?;
            let names = further.templates.names().iter().map(|name| format!("{}/{name}", further.name));
            library.names.extend(names);
            library.further.push(further);
        }
        library.names.sort();
        Ok((library, values))
    }

    /// The names of the templates, sorted.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// What is odd about the values.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Renders a template to a pod overlay. Null where it renders nothing. `data` has the values of the main pack.
    ///
    /// # Errors
    /// [`RenderError`].
    pub(crate) fn render(&self, name: &str, data: &Context) -> Result<Value, RenderError> {
        let Some((pack, template)) = name.split_once('/') else { return self.main.render(name, data) };
        let Some(pack) = self.further.iter().find(|further| further.name == pack) else {
            return self.main.render(name, data);
        };
        let mut own = data.data().clone();
        own["values"] = Value::Object(pack.values.clone());
        pack.templates.render(template, &Context::from(own))
    }
}

/// The values without those of further packs.
fn of_main(values: &Map<String, Value>, further: &[Pack]) -> Map<String, Value> {
    let mut values = values.clone();
    values.retain(|name, _| !further.iter().any(|pack| pack.name == *name));
    values
}

fn compile_further(pack: Pack, main: &Map<String, Value>, sources: &Sources) -> Result<Further, Unusable> {
    let templates = Templates::compile(&pack, &BTreeMap::new())
        .map_err(|e| Unusable::new("packs", format!("{:?}: {e}", pack.name)))?;
    let field = format!("values.{}", pack.name);
    let mut given = match sources.values.get(&pack.name) {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(given)) => given.clone(),
        Some(other) => {
            return Err(Unusable::new(field, format!("is {other}, and must be an object: name: value")));
        }
    };
    if let Some(Value::Object(global)) = main.get(GLOBAL) {
        let own = given.entry(GLOBAL).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(own) = own {
            let mut all = global.clone();
            overlay_values(&mut all, std::mem::take(own));
            *own = all;
        }
    }
    let values = merged(&pack, &field, given, sources)?;
    Ok(Further { name: pack.name, templates, values })
}

/// A pack's values: the operator's, which stand under `field` of the settings, over its defaults.
fn merged(
    pack: &Pack,
    field: &str,
    given: Map<String, Value>,
    sources: &Sources,
) -> Result<Map<String, Value>, Unusable> {
    let mut values = pack.values.clone();
    overlay_values(&mut values, given);
    if let Some(schema) = pack.schema.as_ref().filter(|_| sources.strict) {
        schema::check(schema, &values).map_err(|problems| {
            let problems = problems.into_iter().map(|(path, problem)| {
                (format!("{field}{path}"), format!("{problem} (by the schema of pack {:?})", pack.name))
            });
            Unusable::several(problems.collect())
        })?;
    }
    Ok(values)
}
