//! What the arrays of a PixelCNN++ are called in the reference's checkpoints: `conv2d_0/V`.

/// Kind and number of a layer: `conv2d_12` is `("conv2d", 12)`.
pub(super) fn parse_layer(layer: &str) -> Option<(&str, u64)> {
    let (kind, digits) = layer.rsplit_once('_')?;
    let number: u64 = digits.parse().ok()?;
    // Not "007" or "+7": each layer has one name.
    (number.to_string() == digits).then_some((kind, number))
}

/// The length of the array's name that a name begins with ([`Arrays`](crate::models::variables::Arrays)).
pub(super) fn array(inside: &str) -> Option<usize> {
    let mut parts = inside.split('/');
    let (layer, part) = (parts.next()?, parts.next()?);
    let is_array = match parse_layer(layer)?.0 {
        "conv2d" | "deconv2d" | "dense" => matches!(part, "V" | "g" | "b"),
        "conditional_weights" => part == "hw",
        _ => false,
    };
    is_array.then_some(layer.len() + 1 + part.len())
}
