//! Independent streams of chance from one seed.

use rand_pcg::Pcg32;

/// The stream of sensor `sensor` of device `device` in a run with `seed`.
///
/// Streams do not depend on each other: a device says the same whether it runs alone or among
/// thousands, and a sensor says the same whatever its neighbours draw.
pub(crate) fn stream(seed: u64, device: u32, sensor: u32) -> Pcg32 {
    let place = (u64::from(device) << 32) | u64::from(sensor);
    let state = mix(seed ^ mix(place));
    Pcg32::new(state, mix(state ^ place))
}

/// The output function of SplitMix64: neighbouring inputs give unrelated outputs.
const fn mix(input: u64) -> u64 {
    let z = input.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn the_same_place_gives_the_same_stream() {
        let draw = |seed, device, sensor| stream(seed, device, sensor).next_u64();
        assert_eq!(draw(7, 1, 0), draw(7, 1, 0));
        assert_ne!(draw(7, 1, 0), draw(8, 1, 0));
        assert_ne!(draw(7, 1, 0), draw(7, 2, 0));
        assert_ne!(draw(7, 1, 0), draw(7, 1, 1));
        assert_ne!(draw(7, 1, 2), draw(7, 2, 1));
    }
}
