//! Any object of the API as a watch takes it: its text without what nobody here reads, and of whatever kind, so that the
//! program holds the code that lists and watches once and not once for each kind.
//!
//! Who wrote which field when (`metadata.managedFields`) is about half of the text of a Service, and most objects are far
//! larger than what is used of them. So the text is cut on the way in and then read into a structure of just the fields
//! that are looked at; nothing is built of the others.

use std::{borrow::Cow, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, Resource, api::ApiResource, core::DynamicResourceScope};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// The field of an object's metadata that is left out.
const LEFT_OUT: &str = "managedFields";

/// An object of any kind.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its name, namespace and version; everything else of the metadata is in the text alone.
    metadata: ObjectMeta,
    /// JSON.
    text: Box<str>,
}

/// The objects of kind `K` in all namespaces.
pub fn everywhere<K: Resource<DynamicType = ()>>(client: Client) -> Api<Object> {
    Api::all_with(client, &ApiResource::erase::<K>(&()))
}

/// The objects of kind `K` in `namespace`.
pub fn within<K: Resource<DynamicType = ()>>(client: Client, namespace: &str) -> Api<Object> {
    Api::namespaced_with(client, namespace, &ApiResource::erase::<K>(&()))
}

impl Object {
    /// The object as `K`, which need not know all of its fields; `metadata.managedFields` is never there.
    ///
    /// # Errors
    /// A field that `K` knows is of another type.
    pub fn read<K: DeserializeOwned>(&self) -> Result<K, serde_json::Error> {
        serde_json::from_str(&self.text)
    }
}

impl Resource for Object {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (mut metadata, mut text) = (ObjectMeta::default(), Vec::new());
        deserializer.deserialize_map(Copy {
            part: Part::Object,
            metadata: &mut metadata,
            text: &mut text,
        })?;
        let text = String::from_utf8(text).map_err(de::Error::custom)?;
        Ok(Self {
            metadata,
            text: text.into(),
        })
    }
}

/// Which part of an object is copied.
#[derive(Clone, Copy)]
enum Part {
    Object,
    Metadata,
    Other,
}

/// Copies a value as it is but for what is left out, and notes of the metadata what a watch looks at.
struct Copy<'a> {
    part: Part,
    metadata: &'a mut ObjectMeta,
    text: &'a mut Vec<u8>,
}

impl Copy<'_> {
    fn of(&mut self, part: Part) -> Copy<'_> {
        Copy {
            part,
            metadata: self.metadata,
            text: self.text,
        }
    }

    fn write<E: de::Error>(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), E> {
        serde_json::to_writer(&mut *self.text, value).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Copy<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Copy<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("an object of the API")
    }

    fn visit_unit<E: de::Error>(mut self) -> Result<(), E> {
        self.write(&())
    }

    fn visit_bool<E: de::Error>(mut self, value: bool) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_i64<E: de::Error>(mut self, value: i64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_u64<E: de::Error>(mut self, value: u64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_f64<E: de::Error>(mut self, value: f64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_str<E: de::Error>(mut self, value: &str) -> Result<(), E> {
        self.write(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.text.push(b'[');
        while list.next_element_seed(self.of(Part::Other))?.is_some() {
            self.text.push(b',');
        }
        close(self.text, b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.text.push(b'{');
        while let Some(field) = map.next_key_seed(Key(self.of(self.part)))? {
            let noted = match field {
                Field::LeftOut => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                Field::Holds(part) => {
                    map.next_value_seed(self.of(part))?;
                    self.text.push(b',');
                    continue;
                }
                Field::Name => &mut self.metadata.name,
                Field::Namespace => &mut self.metadata.namespace,
                Field::Version => &mut self.metadata.resource_version,
            };
            *noted = map.next_value()?;
            let value = noted.clone();
            self.write(&value)?;
            self.text.push(b',');
        }
        close(self.text, b'}');
        Ok(())
    }
}

/// What the name of a field says about its value.
enum Field {
    LeftOut,
    Name,
    Namespace,
    Version,
    Holds(Part),
}

/// Copies the name of a field, unless the field is left out.
struct Key<'a>(Copy<'a>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Field;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("the name of a field")
    }

    fn visit_str<E: de::Error>(mut self, name: &str) -> Result<Field, E> {
        let field = match (self.0.part, name) {
            (Part::Metadata, LEFT_OUT) => return Ok(Field::LeftOut),
            (Part::Metadata, "name") => Field::Name,
            (Part::Metadata, "namespace") => Field::Namespace,
            (Part::Metadata, "resourceVersion") => Field::Version,
            (Part::Object, "metadata") => Field::Holds(Part::Metadata),
            _ => Field::Holds(Part::Other),
        };
        self.0.write(name)?;
        self.0.text.push(b':');
        Ok(field)
    }
}

/// Ends a list in place of the comma after its last element, if it has any.
fn close(text: &mut Vec<u8>, end: u8) {
    if text.last() == Some(&b',') {
        text.pop();
    }
    text.push(end);
}

#[cfg(test)]
mod tests {
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::{Value, json};

    use super::*;

    fn whole() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "web", "namespace": "default", "resourceVersion": "7", "labels": {"managedFields": "mine"},
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {
                "text": "\"\\\u{1}\u{1f600}", "numbers": [0, -1, 1.5, 18_446_744_073_709_551_615_u64], "empty": [{}, [], ""],
                "nothing": null, "truth": [true, false], "metadata": {"managedFields": 1, "name": 2},
            },
        })
    }

    /// What is to be left of it.
    fn cut() -> Value {
        let mut cut = whole();
        cut["metadata"].as_object_mut().unwrap().remove(LEFT_OUT);
        cut
    }

    fn is_cut(object: &Object) {
        assert_eq!(object.read::<Value>().unwrap(), cut());
        let meta = object.meta();
        let noted = (&meta.name, &meta.namespace, &meta.resource_version);
        let expected = ["web", "default", "7"].map(|text| Some(text.to_owned()));
        assert_eq!([noted.0, noted.1, noted.2], expected.each_ref());
    }

    #[test]
    fn an_object_is_as_it_was_but_for_who_wrote_it() {
        is_cut(&serde_json::from_value(whole()).unwrap());
        is_cut(&serde_json::from_str(&whole().to_string()).unwrap());
    }

    #[test]
    fn lists_and_events_hold_objects_whatever_the_order_of_their_fields() {
        let list = json!({"kind": "ServiceList", "metadata": {"resourceVersion": "9"}, "items": [whole(), {}]});
        let list: ObjectList<Object> = serde_json::from_value(list).unwrap();
        is_cut(&list.items[0]);
        assert_eq!(list.items[1].read::<Value>().unwrap(), json!({}));
        for text in [
            format!(r#"{{"type": "ADDED", "object": {}}}"#, whole()),
            format!(r#"{{"object": {}, "type": "ADDED"}}"#, whole()),
        ] {
            let event: WatchEvent<Object> = serde_json::from_str(&text).unwrap();
            let WatchEvent::Added(object) = event else {
                panic!("{event:?}");
            };
            is_cut(&object);
        }
    }

    #[test]
    fn half_an_event_is_known_as_such() {
        let text = format!(r#"{{"type": "ADDED", "object": {}}}"#, whole());
        for end in 1..text.len() {
            let Some(half) = text.get(..end) else {
                continue;
            };
            let error = serde_json::from_str::<WatchEvent<Object>>(half).err();
            // As the client asks before it takes the server for a liar.
            assert!(error.is_some_and(|error| error.is_eof()), "{half}");
        }
    }

    #[test]
    fn what_is_no_object_is_none() {
        for text in [
            "7",
            "[]",
            r#""text""#,
            "null",
            r#"{"metadata": {"name": 7}}"#,
        ] {
            assert!(serde_json::from_str::<Object>(text).is_err(), "{text}");
        }
    }
}
