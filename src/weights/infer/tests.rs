//! Inference on lists of variables alone: right ones, and each way to be wrong.

use super::*;

const SMALL: ModelConfig =
    ModelConfig { resnets: 2, filters: 6, mixtures: 5, classes: 0, nonlinearity: Nonlinearity::ConcatElu };

fn variable(name: impl Into<String>, shape: &[usize]) -> Variable {
    Variable { name: name.into(), dtype: DType::Float32, shape: shape.to_vec() }
}

/// The variables of a training checkpoint: raw and averaged weights, optimiser slots of both kinds,
/// a label vector.
fn training(config: ModelConfig) -> Vec<Variable> {
    let mut variables = Vec::new();
    for (i, (_, name, shape)) in tensors_of(&Network::new(config)).enumerate() {
        variables.push(variable(format!("model/{name}"), &shape));
        variables.push(variable(format!("model/{name}/{AVERAGED}"), &shape));
        variables.push(variable(format!("model/{name}/Adam_1"), &shape));
        variables.push(variable(format!("Variable_{i}"), &shape));
    }
    variables.push(Variable { name: "Variable".into(), dtype: DType::Int64, shape: vec![16] });
    variables.push(variable("beta1_power", &[]));
    variables
}

fn infer(variables: &[Variable]) -> Result<Plan> {
    plan(Path::new("ckpt"), variables, &Options::default())
}

fn problems(variables: &[Variable]) -> (String, Vec<String>) {
    match infer(variables).err() {
        Some(Error::Mismatch { expected, problems, .. }) => (expected, problems),
        other => panic!("expected a mismatch, got {other:?}"),
    }
}

#[test]
fn configurations_are_inferred() {
    let elu = ModelConfig { nonlinearity: Nonlinearity::Elu, ..SMALL };
    let conditional = ModelConfig { classes: 7, ..SMALL };
    let deep = ModelConfig { resnets: 9, mixtures: 1, ..conditional };
    for config in [SMALL, elu, conditional, deep, ModelConfig::PAPER] {
        let plan = infer(&training(config)).unwrap();
        assert_eq!(plan.config, config);
        assert!(plan.averaged);
        assert_eq!(plan.stored("conv2d_0/V"), "model/conv2d_0/V/ExponentialMovingAverage");
    }
}

#[test]
fn averages_are_preferred_and_their_absence_is_told() {
    let all = training(SMALL);
    assert!(infer(&all).unwrap().warnings.is_empty());
    let raw = plan(Path::new("ckpt"), &all, &Options { raw: true, ..Options::default() }).unwrap();
    assert_eq!((raw.averaged, raw.stored("conv2d_0/V")), (false, "model/conv2d_0/V"));
    assert!(raw.warnings.is_empty());

    let none: Vec<_> = training(SMALL).into_iter().filter(|v| !v.name.ends_with(AVERAGED)).collect();
    let found = infer(&none).unwrap();
    assert!(!found.averaged);
    assert_eq!(found.warnings, ["no variable ends in /ExponentialMovingAverage: the raw weights are used"]);

    let lacks = ["model/dense_3/g/ExponentialMovingAverage", "model/dense_3/b/ExponentialMovingAverage"];
    let some: Vec<_> = training(SMALL).into_iter().filter(|v| !lacks.contains(&v.name.as_str())).collect();
    let found = infer(&some).unwrap();
    assert!(!found.averaged);
    assert_eq!(found.stored("dense_3/g"), "model/dense_3/g");
    assert_eq!(found.stored("dense_3/V"), "model/dense_3/V/ExponentialMovingAverage");
    assert!(found.warnings[0].starts_with("2 of 270 tensors have no average"), "{:?}", found.warnings);
    assert!(found.warnings[0].ends_with(": dense_3/b, dense_3/g"), "{:?}", found.warnings);
}

#[test]
fn a_checkpoint_of_averages_alone_is_enough_unless_raw_is_wanted() {
    let only: Vec<_> = training(SMALL).into_iter().filter(|v| v.name.ends_with(AVERAGED)).collect();
    assert!(infer(&only).unwrap().averaged);
    let error = plan(Path::new("ckpt"), &only, &Options { raw: true, ..Options::default() }).err().unwrap();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
}

#[test]
fn elu_is_assumed_where_relu_is_as_likely() {
    let elu = ModelConfig { nonlinearity: Nonlinearity::Elu, ..SMALL };
    let found = infer(&training(elu)).unwrap();
    assert!(found.warnings[0].contains("elu is assumed"), "{:?}", found.warnings);
    let wanted = Options { nonlinearity: Some(Nonlinearity::Relu), ..Options::default() };
    let found = plan(Path::new("ckpt"), &training(elu), &wanted).unwrap();
    assert_eq!((found.config.nonlinearity, found.warnings.len()), (Nonlinearity::Relu, 0));
    let error = plan(Path::new("ckpt"), &training(SMALL), &wanted).err().unwrap().to_string();
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
            "model/conv2d_0/g/ExponentialMovingAverage: expected float32, found int64",
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
    assert_eq!(listed, ["2 variables of other names: resnet/conv1/kernel, step ..."]);
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
