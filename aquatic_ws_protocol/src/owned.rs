//! Offers that own their memory.

use crate::client::Offer;
use crate::description::Description;
use crate::offer_id::OfferId;

/// Offers of an announce that own their memory, so that they can be sent to another thread. All texts share
/// one allocation; only the offers that get a receiver become messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedOffers {
    texts: Box<str>,
    /// End of the text and id of each offer.
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

    /// All offers in their order.
    pub fn iter(&self) -> impl Iterator<Item = Offer<'_>> {
        let mut start = 0;
        self.offers.iter().map(move |&(end, ref offer_id)| {
            let text = self.texts.get(start..end).unwrap_or_default();
            start = end;
            Offer { offer: Description::known(text), offer_id: offer_id.clone() }
        })
    }

    /// Heap memory of the offers in bytes.
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
