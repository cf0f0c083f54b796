//! Offers that leave the place where they were received.

use crate::client::Offer;
use crate::description::Description;
use crate::offer_id::OfferId;

/// The offers of an announce with memory of their own, so that they can go to another thread before anybody knows how many
/// of them somebody gets. All their texts are in one piece of memory, and a message is made of those only that go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedOffers {
    texts: Box<str>,
    /// Where each text ends, and the offer's name.
    offers: Box<[(usize, OfferId)]>,
}

impl OwnedOffers {
    /// Copies offers.
    #[must_use]
    pub fn new(offers: &[Offer<'_>]) -> Self {
        let mut texts = String::with_capacity(offers.iter().map(|offer| offer.offer.as_str().len()).sum());
        let copy = |offer: &Offer<'_>| {
            texts.push_str(offer.offer.as_str());
            (texts.len(), offer.offer_id.clone())
        };
        let offers = offers.iter().map(copy).collect();
        Self { texts: texts.into_boxed_str(), offers }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Offer<'_>> {
        let mut start = 0;
        self.offers.iter().map(move |&(end, ref offer_id)| {
            let text = self.texts.get(start..end).unwrap_or_default();
            start = end;
            Offer { offer: Description::known(text), offer_id: offer_id.clone() }
        })
    }

    /// How much memory they take.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let names: usize = self.offers.iter().map(|(_, offer_id)| offer_id.heap_bytes()).sum();
        self.texts.len() + size_of_val(&*self.offers) + names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_what_they_were() {
        let offer = |text, id| Offer {
            offer: Description::parse(text).unwrap(),
            offer_id: OfferId::new(id).unwrap(),
        };
        let long = "n".repeat(60);
        let offers = [offer(r#"{"sdp":"é"}"#, "a"), offer("{}", "ÿ"), offer(r#"{"b":[]}"#, &long)];
        for (count, bytes) in [0, 44, 78, 178].into_iter().enumerate() {
            let (some, _) = offers.split_at(count);
            let owned = OwnedOffers::new(some);
            assert_eq!(owned.iter().collect::<Vec<_>>(), some);
            assert_eq!(owned.heap_bytes(), bytes);
        }
    }
}
