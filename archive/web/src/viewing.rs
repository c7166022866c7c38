//! Query parameters of rendered resources (PS3.18 §8.3.5): text becomes a [`Viewing`] here.
//!
//! ```text
//!   quality=75 · viewport=vw,vh[,sx,sy,sw,sh] · window=centre,width,function · iccprofile=yes|no · annotation=…
//! ```
//!
//! Names and burnt-in text are not drawn: the letters of a name that no font here has would be missing in silence. So
//! `annotation` is answered with the warning that the standard demands.

use crate::status::Problem;
use archive_service::{
    RegionAsked, Viewing,
    render::{Format, Function},
};

/// Of JPEG, where the request says nothing.
const QUALITY: u8 = 90;
/// Columns and rows of a thumbnail, where the request says nothing.
const THUMBNAIL: (u32, u32) = (256, 256);
/// Columns or rows of a viewport: what a JPEG can have.
const EXTENT_MAX: u32 = 65_535;
/// Columns times rows of a viewport.
const PIXELS_MAX: u64 = 1 << 26;

/// What a request wants to see, its format apart, and what of it is not done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    viewing: Viewing,
    quality: Option<u8>,
    annotated: bool,
}

impl Asked {
    /// Of the parameters of a rendered resource, or of a thumbnail.
    pub(crate) fn of(parameters: &[(String, String)], thumbnail: bool) -> Result<Self, Problem> {
        let found = |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let quality = found("quality").map(quality).transpose()?;
        let (viewport, region) = match found("viewport") {
            Some(text) => viewport(text, thumbnail)?,
            None => (None, None),
        };
        let viewing = Viewing {
            format: Format::Jpeg { quality: quality.unwrap_or(QUALITY) },
            viewport: if thumbnail { viewport.or(Some(THUMBNAIL)) } else { viewport },
            region,
            window: found("window").map(window).transpose()?,
            // They may say who the patient is; a thumbnail says nothing.
            overlays: !thumbnail,
            profile: found("iccprofile").map_or(Ok(true), profile)?,
            keep: thumbnail,
        };
        Ok(Self { viewing, quality, annotated: found("annotation").is_some_and(|words| !words.trim().is_empty()) })
    }

    /// In this media type, and what has no meaning in it.
    pub(crate) fn into_viewing(self, media_type: &str) -> (Viewing, Vec<&'static str>) {
        let mut disregarded = Vec::new();
        if self.annotated {
            disregarded.push("The following annotation values are not supported: all of them");
        }
        let mut viewing = self.viewing;
        if media_type == "image/png" {
            viewing.format = Format::Png;
            if self.quality.is_some() {
                disregarded.push("quality: image/png has no loss");
            }
        }
        (viewing, disregarded)
    }
}

fn quality(text: &str) -> Result<u8, Problem> {
    let quality = text.trim().parse().ok().filter(|quality| (1..=100).contains(quality));
    quality.ok_or_else(|| Problem::bad("quality is a whole number from 1 to 100"))
}

type Viewport = (Option<(u32, u32)>, Option<RegionAsked>);

fn viewport(text: &str, thumbnail: bool) -> Result<Viewport, Problem> {
    let wrong = || {
        Problem::bad(if thumbnail {
            "the viewport of a thumbnail is its columns and rows: viewport=256,256"
        } else {
            "a viewport is columns and rows, then perhaps the left edge, upper edge, width and height of what is shown: viewport=512,512,0,0,100,100"
        })
    };
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    let extent = |text: &str| text.parse().ok().filter(|extent| (1..=EXTENT_MAX).contains(extent)).ok_or_else(wrong);
    let (columns, rows, rest) = match fields[..] {
        [columns, rows, ref rest @ ..] if rest.len() <= if thumbnail { 0 } else { 4 } => (columns, rows, rest),
        _ => return Err(wrong()),
    };
    let viewport = (extent(columns)?, extent(rows)?);
    if u64::from(viewport.0) * u64::from(viewport.1) > PIXELS_MAX {
        return Err(Problem::bad("a viewport has at most 67,108,864 pixels"));
    }
    let edge = |at: usize| match rest.get(at) {
        None | Some(&"") => Ok(None),
        Some(text) => text.parse().ok().filter(|edge: &f64| edge.is_finite()).map(Some).ok_or_else(wrong),
    };
    let (x, y, width, height) = (edge(0)?, edge(1)?, edge(2)?, edge(3)?);
    let region = [x, y, width, height].iter().any(Option::is_some);
    Ok((Some(viewport), region.then_some(RegionAsked::Pixels { x, y, width, height })))
}

fn window(text: &str) -> Result<(Function, f64, f64), Problem> {
    let wrong =
        || Problem::bad("a window is its centre, width and function: window=40,400,linear (or linear-exact, sigmoid)");
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    let (centre, width, function) = match fields[..] {
        [centre, width] => (centre, width, "linear"),
        [centre, width, function] => (centre, width, function),
        _ => return Err(wrong()),
    };
    let number = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(wrong);
    let function = match function.to_ascii_lowercase().as_str() {
        "linear" => Function::Linear,
        "linear-exact" | "linear_exact" => Function::LinearExact,
        "sigmoid" => Function::Sigmoid,
        _ => return Err(wrong()),
    };
    let width = number(width)?;
    match function {
        Function::Linear if width < 1.0 => Err(Problem::bad("a linear window is at least 1 wide: take linear-exact")),
        Function::LinearExact | Function::Sigmoid if width <= 0.0 => Err(Problem::bad("a window is wider than 0")),
        Function::Linear | Function::LinearExact | Function::Sigmoid => Ok((function, number(centre)?, width)),
    }
}

/// Whether the profile of the image goes with the picture: no colours are changed here.
fn profile(text: &str) -> Result<bool, Problem> {
    match text.trim().to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(Problem::bad(
            "iccprofile is yes (that of the image, if it has one) or no: colours are not converted here",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn asked(query: &str, thumbnail: bool) -> Result<Asked, Problem> {
        Asked::of(&crate::query::parameters(Some(query)).unwrap(), thumbnail)
    }

    fn viewing(query: &str) -> Viewing {
        asked(query, false).unwrap().into_viewing("image/jpeg").0
    }

    #[test]
    fn parameters_are_those_of_the_standard() {
        assert_eq!(viewing("quality=75").format, Format::Jpeg { quality: 75 });
        let seen = viewing("viewport=512,256,,10.5,-100");
        assert_eq!(seen.viewport, Some((512, 256)));
        let region = RegionAsked::Pixels { x: None, y: Some(10.5), width: Some(-100.0), height: None };
        assert_eq!(seen.region, Some(region));
        assert_eq!(viewing("viewport=512,256").region, None);
        assert_eq!(viewing("window=-600,1500,linear-exact").window, Some((Function::LinearExact, -600.0, 1500.0)));
        assert_eq!(viewing("window=40,400,SIGMOID").window, Some((Function::Sigmoid, 40.0, 400.0)));
        assert_eq!((viewing("").profile, viewing("iccprofile=no").profile), (true, false));
        let thumbnail = asked("", true).unwrap().into_viewing("image/jpeg").0;
        assert_eq!((thumbnail.viewport, thumbnail.overlays, thumbnail.keep), (Some((256, 256)), false, true));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for query in [
            "quality=0",
            "quality=101",
            "quality=x",
            "viewport=1",
            "viewport=0,5",
            "viewport=70000,1",
            "viewport=a,b",
            "viewport=65535,65535",
            "viewport=1,1,0,0,1,1,1",
            "viewport=1,1,nan",
            "viewport=1,1,inf",
            "window=1",
            "window=1,0,linear",
            "window=1,0.5,linear",
            "window=1,0,sigmoid",
            "window=1,-1,linear-exact",
            "window=1,2,curve",
            "window=nan,2,linear",
            "window=1,inf,linear",
            "window=1,2,linear,3",
            "iccprofile=rgb",
        ] {
            let problem = asked(query, false).unwrap_err();
            assert_eq!(problem.status, axum::http::StatusCode::BAD_REQUEST, "{query}");
        }
        assert!(asked("viewport=9,9,1,1,2,2", true).is_err());
    }

    #[test]
    fn what_is_not_done_is_said() {
        let (_, said) = asked("annotation=patient,technique&quality=50", false).unwrap().into_viewing("image/png");
        assert_eq!(said.len(), 2);
        assert_eq!(asked("annotation=", false).unwrap().into_viewing("image/jpeg").1, [""; 0]);
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "[0-9,.a-z+-]{0,30}") {
            for name in ["viewport", "window", "quality", "iccprofile"] {
                for thumbnail in [false, true] {
                    let _ = Asked::of(&[(name.to_owned(), text.clone())], thumbnail);
                }
            }
        }
    }
}
