use super::Site;
pub fn build(_site: &mut Site) {}
