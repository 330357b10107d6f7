//! The one place from which loading, saving, optimizers and gradients know a model's tensors.

use crate::Tensor;

/// Anything that consists of named tensors. Names are those of the Hugging Face layout, parts joined by dots.
pub trait Parameters {
    fn visit<'a>(&'a self, name: &str, each: &mut dyn FnMut(String, &'a Tensor));
    fn visit_mut<'a>(&'a mut self, name: &str, each: &mut dyn FnMut(String, &'a mut Tensor));
}

/// `model.layers` and `norm.weight` make `model.layers.norm.weight`; an empty part adds no dot.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    let dot = if prefix.is_empty() || name.is_empty() { "" } else { "." };
    format!("{prefix}{dot}{name}")
}

impl Parameters for Tensor {
    fn visit<'a>(&'a self, name: &str, each: &mut dyn FnMut(String, &'a Tensor)) {
        each(name.to_owned(), self);
    }

    fn visit_mut<'a>(&'a mut self, name: &str, each: &mut dyn FnMut(String, &'a mut Tensor)) {
        each(name.to_owned(), self);
    }
}

impl<P: Parameters> Parameters for Option<P> {
    fn visit<'a>(&'a self, name: &str, each: &mut dyn FnMut(String, &'a Tensor)) {
        self.iter().for_each(|inner| inner.visit(name, each));
    }

    fn visit_mut<'a>(&'a mut self, name: &str, each: &mut dyn FnMut(String, &'a mut Tensor)) {
        self.iter_mut().for_each(|inner| inner.visit_mut(name, each));
    }
}

impl<P: Parameters> Parameters for Vec<P> {
    fn visit<'a>(&'a self, name: &str, each: &mut dyn FnMut(String, &'a Tensor)) {
        for (number, part) in self.iter().enumerate() {
            part.visit(&join(name, &number.to_string()), each);
        }
    }

    fn visit_mut<'a>(&'a mut self, name: &str, each: &mut dyn FnMut(String, &'a mut Tensor)) {
        for (number, part) in self.iter_mut().enumerate() {
            part.visit_mut(&join(name, &number.to_string()), each);
        }
    }
}

/// Implements [`Parameters`] for a struct: which field has which name in the files.
macro_rules! parameters {
    ($type:ty { $($field:ident: $name:literal),* $(,)? }) => {
        impl crate::Parameters for $type {
            fn visit<'a>(&'a self, name: &str, each: &mut dyn FnMut(String, &'a crate::Tensor)) {
                $(self.$field.visit(&crate::parameters::join(name, $name), each);)*
            }

            fn visit_mut<'a>(
                &'a mut self,
                name: &str,
                each: &mut dyn FnMut(String, &'a mut crate::Tensor),
            ) {
                $(self.$field.visit_mut(&crate::parameters::join(name, $name), each);)*
            }
        }
    };
}
pub(crate) use parameters;
