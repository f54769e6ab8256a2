//! Inference on lists of names and shapes alone: right ones, and each way to be wrong.

use super::*;
use crate::checkpoint::DType;
use crate::models::mismatch;

const SMALL: PixelCnnPp = PixelCnnPp {
    resnets: 2,
    filters: 6,
    mixtures: 5,
    channels: 3,
    classes: 0,
    nonlinearity: Nonlinearity::ConcatElu,
};

fn variable(name: String, shape: &[usize]) -> Variable {
    Variable { name, dtype: DType::Float32, shape: shape.to_vec() }
}

/// A dictionary as training saves it, in one of the spellings of a kernel.
fn dictionary(config: &PixelCnnPp, prefix: &str, spelling: usize) -> Vec<Variable> {
    let (kernel, gain) = SPELLINGS[spelling];
    let mut variables = Vec::new();
    for (parameter, layer) in parameters(config) {
        let arrays = parameter.arrays(true);
        let [(_, shape), (_, outputs)] = &arrays[..] else {
            variables.push(variable(format!("{prefix}{layer}.weight"), &arrays[0].1));
            continue;
        };
        let shape = pytorch_shape(shape);
        let mut norms = vec![1; shape.len()];
        norms[0] = shape[0];
        variables.extend(gain.map(|gain| variable(format!("{prefix}{layer}.{gain}"), &norms)));
        variables.push(variable(format!("{prefix}{layer}.{kernel}"), &shape));
        variables.push(variable(format!("{prefix}{layer}.bias"), outputs));
    }
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    variables
}

fn recipe_of(variables: &[Variable], options: &Options) -> Result<Recipe> {
    recipe(Path::new("file"), variables, &Described::default(), options)
}

fn infer_with(variables: &[Variable], scope: Option<&str>) -> Result<Recipe> {
    let options = Options { scope: scope.map(String::from), ..Options::default() };
    recipe_of(variables, &options)
}

fn infer(variables: &[Variable]) -> Result<Recipe> {
    infer_with(variables, None)
}

fn problems(variables: &[Variable]) -> (String, Vec<String>) {
    mismatch(infer(variables))
}

#[test]
fn every_layer_has_one_name() {
    for resnets in [1, 2, 5] {
        let config = PixelCnnPp { resnets, classes: 7, ..SMALL };
        let names = parameters(&config).into_iter().map(|(_, layer)| layer);
        let names: std::collections::BTreeSet<String> = names.collect();
        assert_eq!(names.len(), config.graph().parameters.len());
        assert_eq!(names.len(), layers(resnets).iter().map(Vec::len).sum::<usize>());
    }
}

#[test]
fn configurations_are_inferred_in_every_spelling_under_every_key() {
    let deep = PixelCnnPp { resnets: 11, mixtures: 1, channels: 3, ..SMALL };
    for config in [SMALL, deep, PixelCnnPp::PAPER] {
        for (spelling, prefix) in
            [(0, ""), (1, "state_dict."), (2, "module."), (0, "model.module."), (0, "a.b.")]
        {
            let recipe = infer(&dictionary(&config, prefix, spelling)).unwrap();
            assert_eq!(recipe.config, config.into());
            assert!(recipe.folded && !recipe.averaged && recipe.warnings.is_empty());
            let (kernel, norms) = SPELLINGS[spelling];
            let layer = format!("{prefix}upsize_ul_stream.1.deconv");
            match &recipe.stored["deconv2d_3/W"] {
                Stored::Kernel { values, gain, .. } => {
                    assert_eq!(*values, format!("{layer}.{kernel}"));
                    assert_eq!(*gain, norms.map(|part| format!("{layer}.{part}")));
                }
                other => panic!("{other:?}"),
            }
            match &recipe.stored["conv2d_2/b"] {
                Stored::Plain(name) => assert_eq!(*name, format!("{prefix}ul_init.1.conv.bias")),
                other => panic!("{other:?}"),
            }
            assert_eq!(recipe.stored.len(), 2 * config.graph().parameters.len());
        }
    }
}

#[test]
fn gray_models_are_known_by_their_first_and_last_layers() {
    let config = PixelCnnPp { channels: 1, ..SMALL };
    let gray = dictionary(&config, "", 0);
    let recipe = infer(&gray).unwrap();
    assert_eq!((recipe.config, recipe.stored.len()), (config.into(), 2 * config.graph().parameters.len()));
    let mut wrong = gray.clone();
    wrong.retain(|v| v.name != "nin_out.lin_a.bias");
    assert_eq!(problems(&wrong).1, ["nin_out.lin_a.bias [15] is missing"]);
    let shape = |name: &str| &gray.iter().find(|v| v.name == name).unwrap().shape[..];
    assert_eq!(shape("u_init.conv.weight_v"), [6, 2, 2, 3]);
    assert_eq!(shape("nin_out.lin_a.weight_v"), [15, 6]);
    let mut four = dictionary(&SMALL, "", 0);
    for name in ["u_init.conv.weight_v", "ul_init.0.conv.weight_v", "ul_init.1.conv.weight_v"] {
        four.iter_mut().find(|v| v.name == name).unwrap().shape[1] = 5;
    }
    let error = infer(&four).unwrap_err().to_string();
    assert_eq!(error, "file: a model for images of 4 channels; 3 (RGB) and 1 (gray) are known");
}

#[test]
fn class_terms_and_channels_that_do_not_double_are_seen() {
    for nonlinearity in [Nonlinearity::ConcatElu, Nonlinearity::Elu] {
        let config = PixelCnnPp { classes: 7, nonlinearity, ..SMALL };
        let recipe = infer(&dictionary(&config, "module.", 2)).unwrap();
        assert_eq!(recipe.config, config.into());
        match &recipe.stored["conditional_weights_3/hw"] {
            Stored::Plain(name) => assert_eq!(*name, "module.up_layers.0.ul_stream.1.class_term.weight"),
            other => panic!("{other:?}"),
        }
        match &recipe.stored["conditional_weights_8/hw"] {
            Stored::Plain(name) => assert_eq!(*name, "module.up_layers.2.u_stream.0.class_term.weight"),
            other => panic!("{other:?}"),
        }
        let assumed = recipe.warnings.iter().any(|warning| warning.contains("elu is assumed"));
        assert_eq!(assumed, nonlinearity == Nonlinearity::Elu, "{:?}", recipe.warnings);
    }
    let elu = PixelCnnPp { nonlinearity: Nonlinearity::Elu, ..SMALL };
    let relu = Options { nonlinearity: Some(Nonlinearity::Relu), ..Options::default() };
    let recipe = recipe_of(&dictionary(&elu, "", 0), &relu).unwrap();
    let expected = PixelCnnPp { nonlinearity: Nonlinearity::Relu, ..SMALL };
    assert_eq!((recipe.config, recipe.warnings.len()), (expected.into(), 0));

    let config = PixelCnnPp { classes: 7, ..SMALL };
    let mut wrong = dictionary(&config, "", 0);
    wrong.retain(|v| v.name != "down_layers.0.u_stream.1.class_term.weight");
    wrong.iter_mut().find(|v| v.name == "up_layers.0.u_stream.0.class_term.weight").unwrap().shape[0] = 8;
    let found = problems(&wrong);
    assert_eq!(found.0, config.to_string());
    let expected = [
        "up_layers.0.u_stream.0.class_term.weight: expected shape [7, 12], found [8, 12]",
        "down_layers.0.u_stream.1.class_term.weight [7, 12] is missing",
    ];
    assert_eq!(found.1, expected);
}

#[test]
fn every_difference_is_listed() {
    let mut variables = dictionary(&SMALL, "module.", 1);
    variables.retain(|v| !v.name.contains("down_layers.2.ul_stream.2.nin_skip"));
    for v in &mut variables {
        match v.name.as_str() {
            "module.u_init.conv.bias" => v.shape = vec![7],
            "module.ul_init.0.conv.bias" => v.dtype = DType::Int64,
            "module.nin_out.lin_a.parametrizations.weight.original0" => v.name = "module.nin_out.g".into(),
            "module.upsize_u_stream.0.deconv.parametrizations.weight.original1" => v.shape.swap(2, 3),
            _ => {}
        }
    }
    let (expected, found) = problems(&variables);
    assert_eq!(expected, SMALL.to_string());
    let layer = "module.down_layers.2.ul_stream.2.nin_skip.lin_a";
    let missing = [
        format!("{layer}.weight_v [6, 24] is missing"),
        format!("{layer}.weight_g [6, 1] is missing"),
        format!("{layer}.bias [6] is missing"),
        "module.nin_out.lin_a.parametrizations.weight.original0 [50, 1] is missing".into(),
        "module.u_init.conv.bias: expected shape [6], found [7]".into(),
        "module.ul_init.0.conv.bias: expected floating-point numbers, found int64".into(),
        "module.nin_out.g is extra".into(),
        "module.upsize_u_stream.0.deconv.parametrizations.weight.original1: expected shape [6, 6, 2, 3], found \
         [6, 6, 3, 2]"
            .into(),
    ];
    assert_eq!(found.len(), missing.len(), "{found:?}");
    assert!(missing.iter().all(|problem| found.contains(problem)), "{found:?}");
}

#[test]
fn of_several_models_the_user_chooses_one() {
    let mut both = dictionary(&SMALL, "model.module.", 0);
    let other = PixelCnnPp { filters: 4, ..SMALL };
    both.extend(dictionary(&other, "ema.", 0));
    both.push(variable("optimizer.state.0.exp_avg".into(), &[6]));
    both.sort_by(|a, b| a.name.cmp(&b.name));
    let error = infer(&both).unwrap_err().to_string();
    assert_eq!(error, "file: 2 models, under the keys \"ema\", \"model\"; choose one as the scope");
    for (scope, config) in [("model", SMALL), ("model.module", SMALL), ("ema", other), ("ema.", other)] {
        assert_eq!(infer_with(&both, Some(scope)).unwrap().config, config.into());
    }
    let error = infer_with(&both, Some("state_dict")).unwrap_err().to_string();
    assert_eq!(error, "scope: expected the key of a model (\"ema\", \"model\"), found \"state_dict\"");
    // In the root, with another below a key.
    let mut nested = dictionary(&SMALL, "", 0);
    nested.extend(dictionary(&other, "ema.", 0));
    assert_eq!(infer_with(&nested, Some("")).unwrap().config, SMALL.into());
    assert_eq!(infer_with(&nested, Some("ema")).unwrap().config, other.into());
}

#[test]
fn files_of_something_else_are_told_so() {
    let adam = [variable("state.0.exp_avg".into(), &[6]), variable("state.0.exp_avg_sq".into(), &[6])];
    let (expected, found) = problems(&adam);
    assert_eq!(expected, "tensors named u_init.conv.bias and so on");
    assert_eq!(found, ["2 tensors of other names: state.0.exp_avg, state.0.exp_avg_sq"]);
    assert_eq!(problems(&[]).1, ["0 tensors of other names: "]);
    let (_, found) = problems(&[variable("u_init.conv.bias".into(), &[6])]);
    assert_eq!(found, ["u_init.conv is missing or empty, which tells the sizes of the others"]);
    let raw = Options { raw: true, ..Options::default() };
    let error = recipe_of(&dictionary(&SMALL, "", 0), &raw).unwrap_err().to_string();
    assert!(
        error.starts_with("raw weights: expected a TensorFlow checkpoint, which has averaged"),
        "{error}"
    );
    let elu = Options { nonlinearity: Some(Nonlinearity::Elu), ..Options::default() };
    let error = recipe_of(&dictionary(&SMALL, "", 0), &elu).unwrap_err().to_string();
    assert!(error.contains("expected concat_elu"), "{error}");
    let large = PixelCnnPp { filters: 20_000, ..SMALL };
    let error = infer(&dictionary(&large, "", 2)).unwrap_err().to_string();
    assert_eq!(error, "file: nr_filters is 20000; 1 to 10000 are supported");
}

#[test]
fn types_that_change_are_told() {
    let mut variables = dictionary(&SMALL, "", 0);
    let of = variables.len();
    variables.iter_mut().for_each(|v| v.dtype = DType::BFloat16);
    variables[0].dtype = DType::Float64;
    let expected = [
        format!("1 of {of} tensors are float64 and are rounded to float32"),
        format!("{} of {of} tensors are bfloat16 and are widened to float32", of - 1),
    ];
    assert_eq!(infer(&variables).unwrap().warnings, expected);
}
