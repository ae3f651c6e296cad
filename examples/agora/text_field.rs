//! A line of text that can be typed: only this file knows Bevy's `EditableText`, which is young and will change.

use bevy::{
    input_focus::{FocusCause, InputFocus},
    prelude::*,
    text::{EditableText, EditableTextSystems, TextCursorStyle, TextEdit},
};

use crate::view::{AEGEAN, FADED_INK, Fonts, INK, PARCHMENT};

/// Longer than any typed line.
const MOST: usize = 300;

/// A field; spawn it with [`spawn`].
#[derive(Component)]
pub struct TextField {
    hint: Entity,
    /// Enter was pressed in this frame.
    entered: bool,
}

/// Enter was pressed in a field; it is empty again.
#[derive(EntityEvent, Clone, Debug)]
pub struct Submitted {
    pub entity: Entity,
    pub text: String,
}

pub fn text_field_plugin(app: &mut App) {
    app.add_systems(Update, (enter, show_hint)).add_systems(PostUpdate, submit.after(EditableTextSystems));
}

/// A field as wide as its parent, with a hint shown while it is empty.
pub fn spawn(commands: &mut Commands, fonts: &Fonts, hint: &str) -> Entity {
    let hint = commands
        .spawn((
            Text::new(hint),
            fonts.text(20.0),
            TextColor(FADED_INK.with_alpha(0.75)),
            Node { position_type: PositionType::Absolute, left: px(12), top: px(7), ..default() },
            Pickable::IGNORE,
        ))
        .id();
    let field = commands
        .spawn((
            TextField { hint, entered: false },
            Node { flex_grow: 1.0, min_width: px(0), padding: UiRect::axes(px(12), px(7)), ..default() },
            EditableText { max_characters: Some(MOST), ..default() },
            TextLayout::no_wrap(),
            fonts.text(20.0),
            TextColor(INK),
            TextCursorStyle { color: AEGEAN, selection_color: AEGEAN.with_alpha(0.25), ..default() },
        ))
        .id();
    // Beside and not in it: a node with children is not measured by its text.
    commands.spawn((Node { flex_grow: 1.0, ..default() }, BackgroundColor(PARCHMENT))).add_children(&[field, hint]).id()
}

/// Gives the field the keyboard focus.
pub fn focus(field: Entity, focus: &mut InputFocus) {
    if focus.get() != Some(field) {
        focus.set(field, FocusCause::Navigated);
    }
}

pub fn set_hint(field: &TextField, hint: &str, texts: &mut Query<&mut Text>) {
    if let Ok(mut text) = texts.get_mut(field.hint)
        && text.0 != hint
    {
        text.0 = hint.into();
    }
}

/// Letters and Enter may come in one frame: the line is taken once the letters are in it.
fn enter(keys: Res<ButtonInput<KeyCode>>, focus: Res<InputFocus>, mut fields: Query<(&mut TextField, &EditableText)>) {
    if keys.any_just_pressed([KeyCode::Enter, KeyCode::NumpadEnter])
        && let Some((mut field, editable)) = focus.get().and_then(|focused| fields.get_mut(focused).ok())
    {
        field.entered = !editable.is_composing();
    }
}

fn submit(mut commands: Commands, mut fields: Query<(Entity, &mut TextField, &mut EditableText)>) {
    for (entity, mut field, mut editable) in &mut fields {
        if field.entered {
            field.entered = false;
            let text = editable.value().to_string();
            editable.clear();
            // The caret stands after text that is no longer there.
            editable.queue_edit(TextEdit::TextStart(false));
            commands.trigger(Submitted { entity, text });
        }
    }
}

fn show_hint(fields: Query<(&TextField, &EditableText)>, mut hints: Query<&mut Visibility>) {
    for (field, editable) in &fields {
        if let Ok(mut visibility) = hints.get_mut(field.hint) {
            let empty = editable.value().to_string().is_empty() && !editable.is_composing();
            visibility.set_if_neq(if empty { Visibility::Inherited } else { Visibility::Hidden });
        }
    }
}
