pub fn bench_plugin(_: &mut bevy::prelude::App) {}
