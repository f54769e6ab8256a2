//! Inference on lists of variables alone: right ones, and each way to be wrong.

use super::*;
use crate::checkpoint::DType;
use crate::models::mismatch;

fn small() -> WaveNet {
    WaveNet {
        dilations: default_dilations(3),
        residual_channels: 3,
        dilation_channels: 4,
        skip_channels: 5,
        quantization_channels: 16,
        ..WaveNet::default()
    }
}

/// Of every kind.
fn all() -> [WaveNet; 8] {
    [
        small(),
        WaveNet { use_biases: false, ..small() },
        WaveNet { classes: 7, ..small() },
        WaveNet { scalar_input: true, initial_filter_width: 9, ..small() },
        WaveNet { filter_width: 3, dilations: vec![1], quantization_channels: 2, ..small() },
        WaveNet { classes: 1, use_biases: false, dilations: default_dilations(23), ..small() },
        WaveNet { residual_channels: 1, dilation_channels: 1, skip_channels: 1, filter_width: 1, ..small() },
        WaveNet::default(),
    ]
}

fn variable(name: impl Into<String>, shape: &[usize]) -> Variable {
    Variable { name: name.into(), dtype: DType::Float32, shape: shape.to_vec() }
}

/// The variables of a checkpoint, and what a trainer may leave beside them.
fn training(config: &WaveNet) -> Vec<Variable> {
    let mut variables = vec![
        variable("global_step", &[]),
        variable("wavenet/beta1_power", &[]),
        variable("Variable", &[3]),
        variable("optimizer/wavenet/causal_layer/filter/Adam", &[2]),
    ];
    for (name, shape) in arrays(config, 6) {
        variables.push(variable(format!("wavenet/{name}/Momentum"), &shape));
        variables.push(variable(format!("wavenet/{name}"), &shape));
    }
    variables
}

fn infer(variables: &[Variable]) -> Result<Recipe> {
    recipe(Path::new("ckpt"), variables, &Options::default())
}

fn problems(variables: &[Variable]) -> (String, Vec<String>) {
    mismatch(infer(variables))
}

/// The names that an array is read from.
fn read_from(recipe: &Recipe, array: &str) -> Vec<String> {
    let Stored::Beside(blocks) = &recipe.stored[array] else { panic!("{:?}", recipe.stored[array]) };
    let names = blocks.iter().map(|block| match block {
        Block::Whole(named) => named.name.clone(),
        Block::Product(left, right) => format!("{} {}", left.name, right.name),
    });
    names.collect()
}

#[test]
fn configurations_are_inferred_and_every_array_of_the_graph_has_its_place() {
    for config in all() {
        let recipe = infer(&training(&config)).unwrap();
        assert_eq!(recipe.config, config.clone().into());
        assert!(recipe.folded && !recipe.averaged);
        let graph = config.graph();
        let mut wanted: Vec<String> = graph.arrays(true).map(|(_, name, _)| name).collect();
        let mut found: Vec<String> = recipe.stored.keys().cloned().collect();
        wanted.sort();
        found.sort();
        assert_eq!(found, wanted, "{config}");
        let of = config.dilations.len();
        let assumed = format!(
            "there is no wavenet_params.json beside ckpt: dilations 1, 2, 4 ... 512 for its {of} layers and 16000 Hz \
             are assumed"
        );
        assert_eq!(
            recipe.warnings,
            [&assumed, "an optimiser's scalars are passed over: wavenet/beta1_power"]
        );
    }
    let recipe = infer(&training(&WaveNet { classes: 7, ..small() })).unwrap();
    let layer = |part: &str| format!("wavenet/dilated_stack/layer1/{part}");
    for (array, names) in [
        ("causal/W", vec!["wavenet/causal_layer/filter".into()]),
        ("layer_1/conv/W", vec![layer("filter"), layer("gate")]),
        ("layer_1/conv/b", vec![layer("Variable"), layer("Variable_1")]),
        ("layer_1/dense/b", vec![layer("Variable_2")]),
        ("layer_1/skip/W", vec![layer("skip")]),
        ("layer_1/skip/b", vec![layer("Variable_3")]),
        ("post_1/b", vec!["wavenet/postprocessing/Variable".into()]),
        ("post_2/W", vec!["wavenet/postprocessing/postprocess2".into()]),
    ] {
        assert_eq!(read_from(&recipe, array), names, "{array}");
    }
    let term =
        ["gc_filter", "gc_gate"].map(|part| format!("wavenet/embeddings/gc_embedding {}", layer(part)));
    assert_eq!(read_from(&recipe, "layer_1/class/hw"), term);
    // Every number is counted once, but for those that nothing reads.
    let read = |(name, shape): (String, Vec<usize>)| {
        let unread = ["layer2/dense", "layer2/Variable_2"].iter().any(|unread| name.ends_with(unread));
        if unread { 0 } else { shape.iter().product() }
    };
    let numbers: usize = arrays(&WaveNet { classes: 7, ..small() }, 6).into_iter().map(read).sum();
    assert_eq!(recipe.claimed, 4 * numbers as u64);
}

#[test]
fn every_difference_is_listed() {
    let config = WaveNet { classes: 7, ..small() };
    let mut variables = training(&config);
    let gone = ["wavenet/dilated_stack/layer1/gate", "wavenet/postprocessing/Variable_1"];
    variables.retain(|v| !gone.contains(&v.name.as_str()));
    for extra in ["dilated_stack/layer1/lc_filter", "dilated_stack/layer7/skip", "dilated_stack/layer01/skip"]
    {
        variables.push(variable(format!("wavenet/{extra}"), &[1, 4, 5]));
    }
    variables.push(variable("wavenet/dilated_stack/layer0/Variable_4", &[4]));
    for v in &mut variables {
        match v.name.as_str() {
            "wavenet/embeddings/gc_embedding" => v.shape = vec![7, 5],
            "wavenet/dilated_stack/layer0/skip" => v.shape = vec![4, 5],
            // Nothing reads it, but a WaveNet has it.
            "wavenet/dilated_stack/layer2/dense" => v.shape = vec![1, 3, 4],
            "wavenet/dilated_stack/layer2/Variable_3" => v.dtype = DType::Int64,
            _ => {}
        }
    }
    let (expected, problems) = problems(&variables);
    assert_eq!(expected, config.to_string());
    assert_eq!(
        problems,
        [
            "wavenet/embeddings/gc_embedding: expected shape [7, 6], found [7, 5]",
            "wavenet/dilated_stack/layer0/skip: expected shape [1, 4, 5], found [4, 5]",
            "wavenet/dilated_stack/layer1/gate [2, 3, 4] is missing",
            "wavenet/dilated_stack/layer2/dense: expected shape [1, 4, 3], found [1, 3, 4]",
            "wavenet/dilated_stack/layer2/Variable_3: expected floating-point numbers, found int64",
            "wavenet/postprocessing/Variable_1 [16] is missing",
            "wavenet/dilated_stack/layer7/skip is extra",
            "wavenet/dilated_stack/layer1/lc_filter is extra",
            "wavenet/dilated_stack/layer01/skip is extra",
            "wavenet/dilated_stack/layer0/Variable_4 is extra",
        ]
    );
    let error = infer(&variables).err().unwrap().to_string();
    assert!(
        error.starts_with("ckpt: not the weights of a WaveNet (3 layers of dilations up to 4"),
        "{error}"
    );
}

#[test]
fn one_damaged_variable_does_not_hide_the_model() {
    for config in all().into_iter().filter(|config| config.residual_channels > 1) {
        let variables = training(&config);
        let arrays = arrays(&config, 6);
        for (damaged, _) in &arrays {
            let name = format!("wavenet/{damaged}");
            // Of two that tell a size either may be the damaged one.
            let few = config.scalar_input || !config.use_biases;
            let needed = [(EMBEDDING, true), (CAUSAL, few), ("postprocessing/postprocess2", few)];
            if needed.contains(&(damaged, true)) || config.dilations.len() == 1 {
                continue;
            }
            let mut absurd = variables.clone();
            absurd.iter_mut().filter(|v| v.name == name).for_each(|v| v.shape.fill(1_000_000_007));
            let (expected, listed) = problems(&absurd);
            assert_eq!((expected, listed.len()), (config.to_string(), 1), "{name}");
            let mut gone = variables.clone();
            gone.retain(|v| v.name != name);
            let (expected, listed) = problems(&gone);
            assert!(listed[0].starts_with(&name) && listed[0].ends_with("is missing"), "{listed:?}");
            assert_eq!((expected, listed.len()), (config.to_string(), 1), "{name}");
        }
    }
}

#[test]
fn what_tells_no_size_and_absurd_sizes_are_refused() {
    let only = |name: &str, shape: &[usize]| problems(&[variable(name, shape)]).1;
    let listed = only("wavenet/causal_layer/filter", &[2, 16, 3]);
    assert_eq!(
        listed,
        ["wavenet/dilated_stack/layer0/filter is missing or empty, which tells the sizes of the others"]
    );
    let mut variables = training(&WaveNet { classes: 7, ..small() });
    variables.retain(|v| v.name != "wavenet/embeddings/gc_embedding");
    let (expected, listed) = problems(&variables);
    assert_eq!(expected, "3 layers, by their numbers");
    assert!(listed[0].starts_with("wavenet/embeddings/gc_embedding is missing or empty"), "{listed:?}");
    let zeros: Vec<_> = training(&small())
        .into_iter()
        .map(|v| Variable { shape: v.shape.iter().map(|_| 0).collect(), ..v })
        .collect();
    assert!(problems(&zeros).1[0].contains("missing or empty"));

    let refused = |edit: &dyn Fn(&mut WaveNet)| {
        let mut config = WaveNet { classes: 7, ..small() };
        edit(&mut config);
        let error = infer(&training(&config)).err().unwrap().to_string();
        assert!(error.starts_with("ckpt: ") && error.len() < 200, "{error}");
        error
    };
    assert!(refused(&|c| c.skip_channels = 1 << 40).contains("skip_channels is 1099511627776; 1 to 10000"));
    assert!(
        refused(&|c| c.residual_channels = usize::MAX).contains("residual_channels is 18446744073709551615")
    );
    assert!(refused(&|c| c.filter_width = 101).contains("filter_width is 101; 1 to 100"));
    assert!(refused(&|c| c.quantization_channels = 1 << 17).contains("quantization_channels is 131072"));
    assert!(refused(&|c| c.classes = usize::MAX).contains("gc_cardinality is 18446744073709551615"));
    // Small in a checkpoint, as a product, and large in memory.
    assert!(
        refused(&|c| (c.classes, c.dilation_channels) = (1_000_000, 10_000)).contains("60000000000 numbers")
    );
    // A layer more than there may be is listed; the numbers of layers are not believed.
    let mut far = training(&small());
    far.push(variable(format!("wavenet/dilated_stack/layer{}/skip", u64::MAX), &[1, 4, 5]));
    assert_eq!(problems(&far).1, [format!("wavenet/dilated_stack/layer{}/skip is extra", u64::MAX)]);
}

/// The variables in another scope.
fn renamed(variables: &[Variable], scope: &str) -> Vec<Variable> {
    let of = |v: &Variable| Variable { name: v.name.replacen("wavenet/", scope, 1), ..v.clone() };
    variables.iter().map(of).collect()
}

#[test]
fn a_model_is_found_in_any_one_scope() {
    let within = |scope: &str| Options { scope: Some(scope.into()), ..Options::default() };
    for scope in ["net/", "tower_0/wavenet/", ""] {
        let variables = renamed(&training(&small()), scope);
        assert_eq!(infer(&variables).unwrap().config, small().into(), "{scope}");
    }
    let other = WaveNet { use_biases: false, ..small() };
    let both = [training(&small()), renamed(&training(&other), "student/")].concat();
    let error = infer(&both).err().unwrap().to_string();
    assert_eq!(error, "ckpt: 2 models, in the scopes student, wavenet; choose one with scope");
    for (scope, config) in [("wavenet", small()), ("student/", other)] {
        assert_eq!(recipe(Path::new("ckpt"), &both, &within(scope)).unwrap().config, config.into());
    }
    let error = recipe(Path::new("ckpt"), &both, &within("teacher")).err().unwrap().to_string();
    let expected = "scope: expected a scope with a model in it (student, wavenet), found \"teacher\"";
    assert_eq!(error, expected);
}

#[test]
fn averages_are_taken_where_a_trainer_kept_some() {
    let hang = |variables: &[Variable], of: &dyn Fn(usize) -> bool| {
        let arrays =
            variables.iter().filter(|v| v.name.starts_with("wavenet/") && !v.name.ends_with("Momentum"));
        let averages = arrays.filter(|v| !v.shape.is_empty()).enumerate().filter(|(i, _)| of(*i));
        let averages =
            averages.map(|(_, v)| variable(format!("{}/ExponentialMovingAverage", v.name), &v.shape));
        variables.iter().cloned().chain(averages).collect::<Vec<_>>()
    };
    let variables = training(&small());
    let recipe_of = |variables: &[Variable], raw| {
        let options = Options { raw, ..Options::default() };
        recipe(Path::new("ckpt"), variables, &options).unwrap()
    };
    let with = hang(&variables, &|_| true);
    let found = recipe_of(&with, false);
    assert!(found.averaged && found.warnings.len() == 2, "{:?}", found.warnings);
    assert_eq!(read_from(&found, "causal/W"), ["wavenet/causal_layer/filter/ExponentialMovingAverage"]);
    let raw = recipe_of(&with, true);
    assert!(!raw.averaged && raw.warnings.len() == 2, "{:?}", raw.warnings);
    let some = recipe_of(&hang(&variables, &|i| i > 0), false);
    assert!(
        !some.averaged && some.warnings[1].contains("1 of 27 tensors have no average"),
        "{:?}",
        some.warnings
    );
}

#[test]
fn other_types_are_taken_with_a_warning_and_options_that_do_not_fit_are_refused() {
    let mut half = training(&small());
    half.iter_mut().for_each(|v| v.dtype = DType::Float16);
    let recipe_of = infer(&half).unwrap();
    assert_eq!(recipe_of.warnings[1], "27 of 27 tensors are float16 and are widened to float32");
    let wanted = Options { nonlinearity: Some(crate::models::Nonlinearity::Relu), ..Options::default() };
    let error = recipe(Path::new("ckpt"), &half, &wanted).err().unwrap().to_string();
    assert_eq!(error, "nonlinearity: a WaveNet's are tanh and sigmoid: there is no choice");
    let options = Options { params: Some("none/of/it.json".into()), ..Options::default() };
    let error = recipe(Path::new("ckpt"), &half, &options).err().unwrap().to_string();
    assert!(error.starts_with("none/of/it.json: cannot open"), "{error}");
}
