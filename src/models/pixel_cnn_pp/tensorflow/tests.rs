//! Inference on lists of variables alone: right ones, and each way to be wrong.

use super::*;
use crate::checkpoint::DType;
use crate::models::mismatch;
use crate::models::variables::AVERAGED;

const SMALL: PixelCnnPp = PixelCnnPp {
    resnets: 2,
    filters: 6,
    mixtures: 5,
    channels: 3,
    classes: 0,
    nonlinearity: Nonlinearity::ConcatElu,
};

fn variable(name: impl Into<String>, shape: &[usize]) -> Variable {
    Variable { name: name.into(), dtype: DType::Float32, shape: shape.to_vec() }
}

/// The variables of a training checkpoint: raw and averaged weights, optimiser slots of both kinds,
/// a label vector.
fn training(config: PixelCnnPp) -> Vec<Variable> {
    let mut variables = Vec::new();
    for (i, (_, name, shape)) in config.graph().arrays(false).enumerate() {
        variables.push(variable(format!("model/{name}"), &shape));
        variables.push(variable(format!("model/{name}/{AVERAGED}"), &shape));
        variables.push(variable(format!("model/{name}/Adam_1"), &shape));
        variables.push(variable(format!("Variable_{i}"), &shape));
    }
    variables.push(Variable { name: "Variable".into(), dtype: DType::Int64, shape: vec![16] });
    variables.push(variable("beta1_power", &[]));
    variables
}

fn infer(variables: &[Variable]) -> Result<Recipe> {
    recipe(Path::new("ckpt"), variables, &Options::default())
}

fn stored<'a>(recipe: &'a Recipe, tensor: &str) -> &'a str {
    match &recipe.stored[tensor] {
        Stored::Plain(name) => name,
        other => panic!("{other:?}"),
    }
}

fn problems(variables: &[Variable]) -> (String, Vec<String>) {
    mismatch(infer(variables))
}

#[test]
fn configurations_are_inferred() {
    let elu = PixelCnnPp { nonlinearity: Nonlinearity::Elu, ..SMALL };
    let conditional = PixelCnnPp { classes: 7, ..SMALL };
    let deep = PixelCnnPp { resnets: 9, mixtures: 1, channels: 3, ..conditional };
    for config in [SMALL, elu, conditional, deep, PixelCnnPp::PAPER] {
        let recipe = infer(&training(config)).unwrap();
        assert_eq!(recipe.config, config.into());
        assert!(recipe.averaged);
        assert_eq!(stored(&recipe, "conv2d_0/V"), "model/conv2d_0/V/ExponentialMovingAverage");
    }
}

#[test]
fn averages_are_preferred_and_their_absence_is_told() {
    let all = training(SMALL);
    assert!(infer(&all).unwrap().warnings.is_empty());
    let raw = recipe(Path::new("ckpt"), &all, &Options { raw: true, ..Options::default() }).unwrap();
    assert_eq!((raw.averaged, stored(&raw, "conv2d_0/V")), (false, "model/conv2d_0/V"));
    assert!(raw.warnings.is_empty());

    let none: Vec<_> = training(SMALL).into_iter().filter(|v| !v.name.ends_with(AVERAGED)).collect();
    let found = infer(&none).unwrap();
    assert!(!found.averaged);
    assert_eq!(found.warnings, ["no variable ends in /ExponentialMovingAverage: the raw weights are used"]);

    let lacks = ["model/dense_3/g/ExponentialMovingAverage", "model/dense_3/b/ExponentialMovingAverage"];
    let some: Vec<_> = training(SMALL).into_iter().filter(|v| !lacks.contains(&v.name.as_str())).collect();
    let found = infer(&some).unwrap();
    assert!(!found.averaged);
    assert_eq!(stored(&found, "dense_3/g"), "model/dense_3/g");
    assert_eq!(stored(&found, "dense_3/V"), "model/dense_3/V/ExponentialMovingAverage");
    assert!(found.warnings[0].starts_with("2 of 270 tensors have no average"), "{:?}", found.warnings);
    assert!(found.warnings[0].ends_with(": dense_3/b, dense_3/g"), "{:?}", found.warnings);
}

#[test]
fn a_checkpoint_of_averages_alone_is_enough_unless_raw_is_wanted() {
    let only: Vec<_> = training(SMALL).into_iter().filter(|v| v.name.ends_with(AVERAGED)).collect();
    assert!(infer(&only).unwrap().averaged);
    let error = recipe(Path::new("ckpt"), &only, &Options { raw: true, ..Options::default() }).err().unwrap();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
}

#[test]
fn elu_is_assumed_where_relu_is_as_likely() {
    let elu = PixelCnnPp { nonlinearity: Nonlinearity::Elu, ..SMALL };
    let found = infer(&training(elu)).unwrap();
    assert!(found.warnings[0].contains("elu is assumed"), "{:?}", found.warnings);
    let wanted = Options { nonlinearity: Some(Nonlinearity::Relu), ..Options::default() };
    let found = recipe(Path::new("ckpt"), &training(elu), &wanted).unwrap();
    let relu = PixelCnnPp { nonlinearity: Nonlinearity::Relu, ..SMALL };
    assert_eq!((found.config, found.warnings), (relu.into(), vec![]));
    let error = recipe(Path::new("ckpt"), &training(SMALL), &wanted).err().unwrap().to_string();
    assert!(error.contains("expected concat_elu"), "{error}");
}

#[test]
fn every_difference_is_listed() {
    let mut variables = training(SMALL);
    variables.retain(|v| !v.name.starts_with("model/conv2d_17/") && !v.name.starts_with("model/dense_4/V"));
    variables.push(variable("model/conv2d_63/g", &[6]));
    variables.push(variable("model/conv2d_18446744073709551615/g", &[6]));
    variables.push(variable("model/conv2d_007/g", &[6]));
    variables.push(variable("model/batch_norm/gamma", &[6]));
    for v in &mut variables {
        match v.name.as_str() {
            "model/dense_0/V/ExponentialMovingAverage" => v.shape.reverse(),
            "model/conv2d_0/g/ExponentialMovingAverage" => v.dtype = DType::Int64,
            "model/deconv2d_3/b/ExponentialMovingAverage" => v.shape = vec![],
            _ => {}
        }
    }
    let (expected, problems) = problems(&variables);
    assert_eq!(expected, SMALL.to_string());
    assert_eq!(
        problems,
        [
            "model/conv2d_0/g/ExponentialMovingAverage: expected floating-point numbers, found int64",
            "model/dense_0/V/ExponentialMovingAverage: expected shape [12, 6], found [6, 12]",
            "model/conv2d_17/V [2, 3, 12, 6] is missing",
            "model/conv2d_17/g [6] is missing",
            "model/conv2d_17/b [6] is missing",
            "model/dense_4/V [12, 6] is missing",
            "model/deconv2d_3/b/ExponentialMovingAverage: expected shape [6], found []",
            "model/conv2d_18446744073709551615/g is extra",
            "model/conv2d_63/g is extra",
            "model/conv2d_007/g is extra",
            "model/batch_norm/gamma is extra",
        ]
    );
}

#[test]
fn one_damaged_variable_does_not_hide_the_model() {
    let mut variables = training(SMALL);
    for v in &mut variables {
        if v.name.starts_with("model/conv2d_0/V") {
            v.shape = vec![2, 3, 4, 1_000_000_007];
        }
    }
    assert_eq!(problems(&variables).0, SMALL.to_string());
}

#[test]
fn other_models_and_absurd_sizes_are_refused() {
    let (_, listed) = problems(&[variable("resnet/conv1/kernel", &[3, 3]), variable("step", &[])]);
    assert_eq!(listed, ["2 variables of other names: resnet/conv1/kernel, step"]);
    assert_eq!(problems(&[]).1.len(), 1);
    assert!(problems(&[variable("model/dense_7/hw", &[3])]).1[0].contains("other names"));
    let (_, listed) = problems(&[variable("model/dense_7/V", &[3, 4])]);
    assert!(listed[0].starts_with("conv2d_0 is missing or empty"), "{listed:?}");
    let huge = [
        variable("model/conv2d_0/V", &[2, 3, 4, usize::MAX]),
        variable("model/dense_13/V", &[usize::MAX, usize::MAX]),
    ];
    let error = infer(&huge).err().unwrap().to_string();
    assert!(error.contains("nr_filters is 18446744073709551615"), "{error}");
}

/// The variables with another name in the place of the scope `model`.
fn renamed(variables: &[Variable], scope: &str) -> Vec<Variable> {
    let of = |v: &Variable| match v.name.strip_prefix("model/") {
        Some(inside) => Variable { name: format!("{scope}{inside}"), ..v.clone() },
        None => v.clone(),
    };
    variables.iter().map(of).collect()
}

fn within(scope: &str) -> Options {
    Options { scope: Some(scope.into()), ..Options::default() }
}

#[test]
fn a_model_is_found_in_any_one_scope() {
    for scope in ["pixelcnn/", "a/b/model/", "model_1/", ""] {
        let found = infer(&renamed(&training(SMALL), scope)).unwrap();
        assert_eq!((&found.config, found.averaged), (&SMALL.into(), true), "{scope}");
        assert_eq!(stored(&found, "dense_0/g"), format!("{scope}dense_0/g/ExponentialMovingAverage"));
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        let mut broken = renamed(&training(SMALL), scope);
        broken.retain(|v| !v.name.contains("dense_4/V"));
        broken.push(variable(format!("{scope}attention/query"), &[3]));
        let (expected, listed) = problems(&broken);
        assert_eq!(expected, SMALL.to_string());
        assert_eq!(
            listed,
            [format!("{scope}dense_4/V [12, 6] is missing"), format!("{scope}attention/query is extra")]
        );
    }
}

#[test]
fn of_models_in_several_scopes_one_must_be_chosen() {
    let elu = PixelCnnPp { nonlinearity: Nonlinearity::Elu, ..SMALL };
    let mut both = training(SMALL);
    both.extend(renamed(&training(elu), "model/teacher/"));
    let error = infer(&both).err().unwrap().to_string();
    assert_eq!(error, "ckpt: 2 models, in the scopes model, model/teacher; choose one with scope");
    for (scope, config) in [("model", SMALL), ("model/", SMALL), ("model/teacher", elu)] {
        let found = recipe(Path::new("ckpt"), &both, &within(scope)).unwrap();
        assert_eq!((found.config, found.averaged), (config.into(), true), "{scope}");
    }
    for scope in ["", "teacher", "mode", "model/teacher/x"] {
        let error = recipe(Path::new("ckpt"), &both, &within(scope)).err().unwrap().to_string();
        let expected = "scope: expected a scope with a model in it (model, model/teacher), found ";
        assert_eq!(error, format!("{expected}\"{scope}\""));
    }
    let mut none = training(SMALL);
    none.extend(renamed(&training(elu), ""));
    let error = infer(&none).err().unwrap().to_string();
    assert!(error.contains("in the scopes \"\", model; choose"), "{error}");
    assert_eq!(recipe(Path::new("ckpt"), &none, &within("")).unwrap().config, elu.into());
    // A layer of such a name is no model, but something that a PixelCNN++ has not.
    let mut more = training(SMALL);
    more.push(variable("model/block/conv2d_0/V", &[3]));
    more.push(variable("elsewhere/conv2d_0/V", &[3]));
    assert_eq!(problems(&more).1, ["model/block/conv2d_0/V is extra"]);
    let hundred = (0..100).flat_map(|i| renamed(&training(SMALL), &format!("replica_{i}/")));
    let error = infer(&hundred.collect::<Vec<_>>()).err().unwrap().to_string();
    assert!(error.starts_with("ckpt: 100 models, in the scopes replica_0, replica_1, "), "{error}");
    assert!(error.contains(" more; choose one") && error.len() < 250, "{error}");
}

/// As TensorFlow names them where the averages and the optimiser are made inside of the scope `model`.
#[test]
fn averages_of_other_names_are_named() {
    let raw = || training(SMALL).into_iter().filter(|v| !v.name.ends_with(AVERAGED));
    let graph = SMALL.graph();
    let names: Vec<_> = graph.arrays(false).collect();
    let hang = |scope: &str, ending: &str| {
        let of =
            |(_, name, shape): &(_, String, Vec<usize>)| variable(format!("{scope}{name}/{ending}"), shape);
        raw().chain(names.iter().map(of)).collect::<Vec<_>>()
    };
    let (count, head) =
        (names.len(), "no tensor's average bears its name and /ExponentialMovingAverage: the raw");
    let warnings = infer(&hang("model/", "ExponentialMovingAverage_1")).unwrap().warnings;
    let expected = format!(
        "{head} weights are used; {count} look like averages by other names: \
         model/conv2d_0/V/ExponentialMovingAverage_1, and {} more",
        count - 1
    );
    assert_eq!(warnings, [expected]);
    let mut nested = hang("model/model/", AVERAGED);
    nested.extend(names.iter().map(|(_, name, shape)| variable(format!("model/model/{name}/Adam"), shape)));
    nested.extend(["beta1_power", "beta2_power_1"].map(|name| variable(format!("model/{name}"), &[])));
    let found = infer(&nested).unwrap();
    assert!(!found.averaged && found.warnings.len() == 2, "{:?}", found.warnings);
    assert!(found.warnings[0].starts_with(head), "{:?}", found.warnings);
    assert!(found.warnings[0].ends_with(" more (the scope model/model has them)"), "{:?}", found.warnings);
    let scalars = "an optimiser's scalars are passed over: model/beta1_power, model/beta2_power_1";
    assert_eq!(found.warnings[1], scalars);
    let found = recipe(Path::new("ckpt"), &nested, &within("model/model")).unwrap();
    assert!(found.averaged && found.warnings.is_empty(), "{:?}", found.warnings);
    // Wanted raw, there is nothing to warn of.
    let options = Options { raw: true, ..Options::default() };
    let raw = recipe(Path::new("ckpt"), &hang("model/", "ExponentialMovingAverage_1"), &options).unwrap();
    assert!(raw.warnings.is_empty(), "{:?}", raw.warnings);
    // Some have averages, and others under another name.
    let mut some = hang("model/", AVERAGED);
    let lacks = "model/dense_3/g/ExponentialMovingAverage";
    some.iter_mut().filter(|v| v.name == lacks).for_each(|v| v.name.push_str("_1"));
    let warnings = infer(&some).unwrap().warnings;
    assert!(warnings[0].starts_with("1 of 270 tensors have no average"), "{warnings:?}");
    assert!(
        warnings[0].ends_with(&format!("1 look like averages by other names: {lacks}_1")),
        "{warnings:?}"
    );
}

#[test]
fn an_optimiser_s_scalars_are_passed_over_and_weights_are_not() {
    let with = |name: &str, dtype: DType, shape: &[usize]| {
        let mut variables = training(SMALL);
        variables.push(Variable { name: name.into(), dtype, shape: shape.to_vec() });
        infer(&variables).map(|recipe| recipe.warnings)
    };
    let names = ["beta1_power", "beta2_power_3", "global_step", "optimizer/learning_rate", "Adam/iter"];
    for name in names.map(|name| format!("model/{name}")) {
        let expected = format!("an optimiser's scalars are passed over: {name}");
        assert_eq!(with(&name, DType::Float32, &[]).unwrap(), [expected]);
    }
    assert_eq!(with("model/seen", DType::Int64, &[]).unwrap().len(), 1);
    for (name, dtype, shape) in [
        ("model/beta1_power", DType::Float32, &[2][..]),
        ("model/gate", DType::Float32, &[]),
        ("model/step_size", DType::Float32, &[]),
        ("model/labels", DType::Int64, &[4]),
    ] {
        let error = with(name, dtype, shape).unwrap_err().to_string();
        assert!(error.ends_with(&format!(": {name} is extra")), "{error}");
    }
}

#[test]
fn other_floating_point_types_are_taken_with_a_warning() {
    let typed = |of: &dyn Fn(usize) -> DType| {
        let mut variables = training(SMALL);
        for (i, v) in variables.iter_mut().filter(|v| v.name.ends_with(AVERAGED)).enumerate() {
            v.dtype = of(i);
        }
        infer(&variables)
    };
    let recipe = typed(&|_| DType::Float16).unwrap();
    assert_eq!(recipe.warnings, ["270 of 270 tensors are float16 and are widened to float32"]);
    assert_eq!(recipe.claimed, 2 * SMALL.graph().parameter_count() as u64);
    let mixed = [DType::Float64, DType::Float32, DType::BFloat16];
    let warnings = typed(&|i| mixed[i % 3]).unwrap().warnings;
    let expected = ["float64 and are rounded", "bfloat16 and are widened"];
    assert_eq!(warnings, expected.map(|e| format!("90 of 270 tensors are {e} to float32")));
    let error = typed(&|_| DType::Int32).err().unwrap().to_string();
    assert!(error.len() < 400 && error.contains("expected floating-point numbers, found int32"), "{error}");
    assert!(error.ends_with(" more"), "{error}");
}
